"""One distribution, four generic names: ours, all of it, and the root command imports none of them."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import typer

import network.main
from network.main import DISTRIBUTION, ENTRY_POINTS, GROUPS, PACKAGES, Group

ROOT = Path(__file__).parents[2]
COMMAND = "from network.main import main; main()"


def run_kvr(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the root command in a process of its own, outside the checkout."""
    return subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, *arguments],
        cwd="/",
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_names_resolve_to_this_checkout_or_to_files_that_our_distribution_recorded(package: str) -> None:
    spec = importlib.util.find_spec(package)
    recorded = {Path(str(file.locate())).resolve() for file in metadata.distribution(DISTRIBUTION).files or ()}

    assert spec is not None
    assert spec.origin is not None
    origin = Path(spec.origin).resolve()
    assert origin == ROOT / package / "__init__.py" or origin in recorded


def test_names_resolve_to_us_because_no_other_distribution_records_them() -> None:
    others = {
        (distribution.metadata["Name"], file.parts[0])
        for distribution in metadata.distributions()
        if distribution.metadata["Name"] != DISTRIBUTION
        for file in distribution.files or ()
        if file.parts[0].removesuffix(".py") in PACKAGES
    }

    assert others == set()


def test_warns_when_another_package_shadows_one_of_our_names(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").touch()

    result = run_kvr("--version", PYTHONPATH=str(tmp_path))

    assert result.returncode == 0
    assert "'gateway'" in result.stderr
    assert str(tmp_path) in result.stderr


def test_is_silent_when_every_name_is_ours() -> None:
    result = run_kvr("--version")

    assert (result.returncode, result.stdout, result.stderr) == (0, f"kvr {metadata.version(DISTRIBUTION)}\n", "")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_carries_the_version_of_the_distribution_and_its_types(package: str) -> None:
    module = importlib.import_module(package)

    assert module.__version__ == metadata.version(DISTRIBUTION)
    assert (Path(str(module.__file__)).parent / "py.typed").exists()


def test_tests_are_not_importable_from_an_installation() -> None:
    code = "import importlib.util; print(importlib.util.find_spec('tests'))"

    result = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True)

    assert result.stdout == "None\n"


def test_root_command_lists_every_group_without_importing_it() -> None:
    code = (
        "import sys\n"
        "from network.main import application\n"
        "application()(['--help'], standalone_mode=False)\n"
        "print('imported:', {'kvr_sync', 'gateway', 'chaincode', 'network.demo', 'sqlalchemy'} & {*sys.modules})"
    )

    result = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True)

    assert "imported: set()" in result.stdout
    for entry_point in metadata.entry_points(group=ENTRY_POINTS):
        assert entry_point.name in result.stdout


def test_every_group_has_its_line_in_the_list_and_names_extras_that_exist() -> None:
    registered = {entry_point.name for entry_point in metadata.entry_points(group=ENTRY_POINTS)}
    extras = set(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())

    assert set(GROUPS) == registered
    assert {extra for group in GROUPS.values() for extra in group.extras.split(",")} <= extras


def test_an_unknown_group_is_answered_with_the_groups_there_are() -> None:
    result = run_kvr("nonsense")

    assert result.returncode == 2
    assert f"'nonsense' is no group of commands; there are: {', '.join(sorted(GROUPS))}" in result.stderr


def test_a_missing_package_is_answered_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "group_with_needs.py").write_text("import a_package_nobody_has\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    entry_point = metadata.EntryPoint("sync", "group_with_needs:app", ENTRY_POINTS)

    with pytest.raises(typer.Exit) as stop:
        network.main.load(entry_point, Group("", "sync"))

    assert stop.value.exit_code == 2
    message = capsys.readouterr().err
    assert "a_package_nobody_has is not installed" in message
    assert "pip install 'kvr-fabric[sync]'" in message


def test_a_defect_of_our_own_modules_is_not_mistaken_for_a_missing_extra() -> None:
    entry_point = metadata.EntryPoint("sync", "kvr_sync.no_such_module:app", ENTRY_POINTS)

    with pytest.raises(ModuleNotFoundError, match=r"kvr_sync\.no_such_module"):
        network.main.load(entry_point, Group("", "sync"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_four_packages_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.whl")

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()

    top = {name.split("/")[0] for name in names}
    assert top == {*PACKAGES, f"kvr_fabric-{metadata.version(DISTRIBUTION)}.dist-info"}
    here = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.*")}
    assert {name for name in here if "/__pycache__" not in name} <= set(names)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_the_source_archive_holds_the_four_packages_and_what_building_them_takes(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")

    with tarfile.open(path) as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}

    assert top == {*PACKAGES, "pyproject.toml", "README.md", "LICENSE", "PKG-INFO", ".gitignore"}


@pytest.fixture(scope="module")
def locks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("locks", ROOT / "requirements" / "locks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pinned_files_meet_pyproject_and_hold_no_address_or_path(locks: ModuleType) -> None:
    assert locks.check() == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://packages.example/simple",
        "--find-links wheels",
        "--trusted-host packages.example",
        "    # via -r /home/somebody/requirements.in",
        "kvr @ file:///home/somebody/kvr",
        "typer>=1",
        "typer==1",
    ],
)
def test_a_pinned_file_with_anything_but_hashed_pins_is_refused(locks: ModuleType, line: str) -> None:
    good = f"typer==1.0 \\\n    --hash=sha256:{'0' * 64}\n    # via -r runtime.in\n"

    assert list(locks.check_form(good)) == []
    assert [number for number, _ in locks.check_form(f"{good}{line}\n")] == [4]


def test_a_requirement_without_a_fitting_pin_is_named(locks: ModuleType) -> None:
    faults = list(locks.unmet(["a-package>=2", "another-package"], {"a-package": "1.9"}))

    assert len(faults) == 2
    assert any("a-package>=2" in fault and "pinned to 1.9" in fault for fault in faults)
    assert any("another-package" in fault and "not pinned" in fault for fault in faults)
