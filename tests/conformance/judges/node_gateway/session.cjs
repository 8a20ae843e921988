// A session of Fabric's Node client with a network: every step is one line of JSON on stdout, and says what it has to be.
//
// `node session.cjs FILE`, FILE: {channel, peers: {MSP id: {address, tls_root}}, identities: {name: {msp_id, certificate,
// key}}, folder}; all values but `folder` are texts, certificates and keys in PEM. Exit status 1: a step was not as it
// has to be; stderr names it. What differs from network to network (ids, ports) is left to whoever compares.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { isDeepStrictEqual } = require('node:util');
const grpc = require('@grpc/grpc-js');
const { checkpointers, connect, hash, signers, CommitError, GatewayError } = require('@hyperledger/fabric-gateway');
const { common, gateway: messages, msp, peer } = require('@hyperledger/fabric-protos');

const SERVICE = 'ServiceMSP';
const BILLING = 'BillingMSP';
const CUSTOMER = 'CustomerMSP';
const ABORTED = 'ABORTED';
const FAILED_PRECONDITION = 'FAILED_PRECONDITION';
const UNAVAILABLE = 'UNAVAILABLE';
const UNKNOWN = 'UNKNOWN';
const PERMISSION_DENIED = 'PERMISSION_DENIED';
const DEADLINE_EXCEEDED = 'DEADLINE_EXCEEDED';
const CANCELLED = 'CANCELLED';
const PATIENCE_MS = 30_000;
const SHORT_MS = 1_500;

const settings = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const utf8 = new TextDecoder();
let failures = 0;

// --- steps

/**
 * Take a step and print what came of it. `expected`: {result} exactly, or some fields of an error; nothing: any result.
 */
async function step(name, action, expected = {}) {
    let outcome;
    try {
        outcome = { result: plain(await action()) };
    } catch (error) {
        outcome = describe(error);
    }
    process.stdout.write(`${JSON.stringify({ step: name, ...outcome })}\n`);
    const wanted = 'error' in expected || 'result' in expected ? expected : { error: undefined };
    const wrong = Object.keys(wanted).filter((field) => !isDeepStrictEqual(outcome[field], plain(wanted[field])));
    if (wrong.length > 0) {
        failures += 1;
        process.stderr.write(`${name}: ${JSON.stringify(outcome)} instead of ${JSON.stringify(plain(wanted))}\n`);
    }
}

function describe(error) {
    if (error instanceof CommitError) {
        return { error: 'CommitError', code: codeName(error.code), message: error.message, id: error.transactionId };
    }
    if (error instanceof GatewayError) {
        const details = error.details.map(({ address, mspId, message }) => ({ address, mspId, message }));
        // Peers that are asked together answer in any order.
        details.sort((one, other) => (one.mspId < other.mspId ? -1 : 1));
        const found = { error: error.constructor.name, code: grpc.status[error.code], message: error.message };
        return { ...found, organizations: details.map((detail) => detail.mspId), details, id: error.transactionId };
    }
    return { error: error.constructor.name, message: error.message };
}

function plain(value) {
    if (value instanceof Uint8Array) {
        return utf8.decode(value);
    }
    return typeof value === 'bigint' ? Number(value) : value;
}

function hex(bytes) {
    return Buffer.from(bytes).toString('hex');
}

function codeName(code) {
    return Object.entries(peer.TxValidationCode).find(([, number]) => number === code)[0];
}

// --- connections

const clients = new Map();

/** Give the gateway of an organisation's peer as an identity sees it; without `signs` it cannot sign. */
function gatewayAt(mspId, identity = `${mspId}/agent`, { signs = true, signer = identity } = {}) {
    if (!clients.has(mspId)) {
        const { address, tls_root: root } = settings.peers[mspId];
        const options = { 'grpc.ssl_target_name_override': 'localhost' }; // Node complains of addresses as names
        clients.set(mspId, new grpc.Client(address, grpc.credentials.createSsl(Buffer.from(root)), options));
    }
    const { msp_id: creator, certificate } = settings.identities[identity];
    return connect({
        client: clients.get(mspId),
        identity: { mspId: creator, credentials: Buffer.from(certificate) },
        ...(signs ? { signer: signers.newPrivateKeySigner(privateKey(signer)) } : {}),
        hash: hash.sha256,
        evaluateOptions: inTime,
        endorseOptions: inTime,
        submitOptions: inTime,
        commitStatusOptions: inTime,
    });
}

function inTime() {
    return { deadline: Date.now() + PATIENCE_MS };
}

function privateKey(identity) {
    return crypto.createPrivateKey(settings.identities[identity].key);
}

function networkAt(mspId, identity, options) {
    return gatewayAt(mspId, identity, options).getNetwork(settings.channel);
}

function contractAt(mspId, { chaincode = 'session', identity, channel = settings.channel, ...options } = {}) {
    return gatewayAt(mspId, identity, options).getNetwork(channel).getContract(chaincode);
}

const own = contractAt(SERVICE);

function script(...operations) {
    return { arguments: [JSON.stringify(operations)] };
}

function status(code, message = '', payload = '', event = '') {
    return { arguments: [String(code), message, payload, event] };
}

/** Endorse, submit and wait until every peer has it; gives what the chaincode answered. */
async function commit(contract, name, options) {
    const transaction = await contract.newProposal(name, options).endorse();
    const submitted = await transaction.submit();
    await settled(submitted);
    return transaction.getResult();
}

/** Wait for the verdict of every peer: else the next transaction could find them at different heights. */
async function settled(submitted) {
    const verdict = await submitted.getStatus();
    for (const mspId of Object.keys(settings.peers)) {
        await commitAt(mspId, verdict.transactionId).getStatus();
    }
    if (!verdict.successful) {
        throw new CommitError({ ...verdict, message: `${verdict.transactionId} has code ${verdict.code}` });
    }
    return verdict;
}

/** Give a transaction by its id, as the gateway of an organisation's peer is asked about it. */
function commitAt(mspId, transactionId, { identity, channel = settings.channel } = {}) {
    const gateway = gatewayAt(mspId, identity);
    const { credentials, mspId: creator } = gateway.getIdentity();
    const serialized = new msp.SerializedIdentity();
    serialized.setMspid(creator);
    serialized.setIdBytes(credentials);
    const request = new messages.CommitStatusRequest();
    request.setTransactionId(transactionId);
    request.setChannelId(channel);
    request.setIdentity(serialized.serializeBinary());
    const signed = new messages.SignedCommitStatusRequest();
    signed.setRequest(request.serializeBinary());
    return gateway.newCommit(signed.serializeBinary());
}

/** Give an endorsed transaction with another channel in its header. */
function onAnotherChannel(transaction, channel) {
    const prepared = messages.PreparedTransaction.deserializeBinary(transaction.getBytes());
    const payload = common.Payload.deserializeBinary(prepared.getEnvelope().getPayload_asU8());
    const header = common.ChannelHeader.deserializeBinary(payload.getHeader().getChannelHeader_asU8());
    header.setChannelId(channel);
    payload.getHeader().setChannelHeader(header.serializeBinary());
    prepared.getEnvelope().setPayload(payload.serializeBinary());
    return gatewayAt(SERVICE).newTransaction(prepared.serializeBinary());
}

function endorsers(transaction) {
    const prepared = messages.PreparedTransaction.deserializeBinary(transaction.getBytes());
    const payload = common.Payload.deserializeBinary(prepared.getEnvelope().getPayload_asU8());
    const [action] = peer.Transaction.deserializeBinary(payload.getData_asU8()).getActionsList();
    const content = peer.ChaincodeActionPayload.deserializeBinary(action.getPayload_asU8());
    const found = content.getAction().getEndorsementsList();
    return found.map((it) => msp.SerializedIdentity.deserializeBinary(it.getEndorser_asU8()).getMspid()).sort();
}

// --- transactions

async function transactions() {
    await step('evaluate what is not there', () => own.evaluate('run', script(['get', 'a'])), { result: '[null]' });
    await step('submit', () => commit(own, 'run', script(['get', 'a'], ['put', 'a', '1'])), { result: '[null,true]' });
    await step('evaluate what was written', () => own.evaluate('run', script(['get', 'a'])), { result: '["31"]' });
    await step('evaluate writes nothing', async () => {
        await own.evaluate('run', script(['put', 'a', '2']));
        return own.evaluate('run', script(['get', 'a']));
    }, { result: '["31"]' });
    await step('submitTransaction', () => own.submitTransaction('run', JSON.stringify([['put', 'b', '1']])), {
        result: '[true]',
    });
    await step('step by step', async () => {
        const proposal = own.newProposal('run', script(['put', 'c', '1']));
        const transaction = await proposal.endorse();
        const submitted = await transaction.submit();
        const verdict = await settled(submitted);
        const ids = [proposal, transaction, submitted, verdict].map((it) => it.transactionId ?? it.getTransactionId());
        const { code, successful } = verdict;
        return { ids: new Set(ids).size, code, successful, result: plain(submitted.getResult()) };
    }, { result: { ids: 1, code: 0, successful: true, result: '[true]' } });
    await step('submitAsync', async () => {
        const submitted = await own.submitAsync('run', script(['put', 'd', '1']));
        return [plain(submitted.getResult()), codeName((await settled(submitted)).code)];
    }, { result: ['[true]', 'VALID'] });
    await step('any status below 400 is a result', () => commit(own, 'status', status(399, 'a message', 'a payload')), {
        result: 'a payload',
    });
    await step('signed elsewhere', async () => {
        const gateway = gatewayAt(SERVICE, `${SERVICE}/agent`, { signs: false });
        const sign = signers.newPrivateKeySigner(privateKey(`${SERVICE}/agent`));
        const contract = gateway.getNetwork(settings.channel).getContract('session');
        const unsigned = contract.newProposal('run', script(['put', 'e', '1']));
        const proposal = gateway.newSignedProposal(unsigned.getBytes(), await sign(unsigned.getDigest()));
        const prepared = await proposal.endorse();
        const transaction = gateway.newSignedTransaction(prepared.getBytes(), await sign(prepared.getDigest()));
        const submitted = await transaction.submit();
        const request = gateway.newSignedCommit(submitted.getBytes(), await sign(submitted.getDigest()));
        return (await request.getStatus()).successful;
    }, { result: true });
    await step('auditors may evaluate', () =>
        contractAt(SERVICE, { identity: 'AuditorMSP/auditor' }).evaluate('run', script(['get', 'a'])), {
        result: '["31"]',
    });
    await step('members may ask about transactions of others', async () => {
        const submitted = await own.submitAsync('run', script(['put', 'f', '1']));
        await settled(submitted);
        const asked = commitAt(BILLING, submitted.getTransactionId(), { identity: 'AuditorMSP/auditor' });
        return codeName((await asked.getStatus()).code);
    }, { result: 'VALID' });
}

// --- organisations and private data

async function organizations() {
    const pair = { endorsingOrganizations: [SERVICE, BILLING] };
    await step('the policy chooses two organisations', async () => {
        const found = endorsers(await own.newProposal('run', script(['put', 'a', '3'])).endorse());
        return [found.length, found.includes(SERVICE), found.includes(CUSTOMER)];
    }, { result: [2, true, true] });
    await step('endorsing organisations as named', async () => {
        const named = { endorsingOrganizations: [BILLING, CUSTOMER] };
        return endorsers(await own.newProposal('run', { ...script(['put', 'a', '3']), ...named }).endorse());
    }, { result: [BILLING, CUSTOMER] });
    await step('evaluated where it is asked for', () =>
        own.evaluate('run', { ...script(['peer']), endorsingOrganizations: [BILLING] }), { result: '["BillingMSP"]' });
    await step('too few organisations named', async () => {
        const named = { endorsingOrganizations: [SERVICE] };
        return commit(own, 'run', { ...script(['put', 'a', '3']), ...named });
    }, { error: 'CommitError', code: 'ENDORSEMENT_POLICY_FAILURE' });
    await step('an organisation without peers named', () =>
        own.newProposal('run', { ...script(['get', 'a']), endorsingOrganizations: ['AuditorMSP'] }).endorse(), {
        error: 'EndorseError', code: UNAVAILABLE, organizations: [],
    });
    await step('evaluated at an organisation without peers', () =>
        own.evaluate('run', { ...script(['get', 'a']), endorsingOrganizations: ['AuditorMSP'] }), {
        error: 'GatewayError', code: FAILED_PRECONDITION, organizations: [],
    });
    await step('private data from transient data', () => commit(own, 'run', {
        ...script(['pget', 'pair', 'p'], ['pput_transient', 'pair', 'p', 'secret']),
        transientData: { secret: 'salted' },
        ...pair,
    }), { result: '[null,true]' });
    await step('private data at a member', () => own.evaluate('run', script(['pget', 'pair', 'p'])), {
        result: '["73616c746564"]',
    });
    await step('transient data stays at home', () =>
        own.evaluate('run', { ...script(['peer'], ['pget', 'pair', 'p']), transientData: { any: 'thing' } }), {
        result: '["ServiceMSP","73616c746564"]',
    });
    await step('private data elsewhere', () =>
        contractAt(CUSTOMER).evaluate('texts', script(['pget', 'pair', 'p'])));
    await step('the hash of private data elsewhere', () =>
        contractAt(CUSTOMER).evaluate('run', script(['phash', 'pair', 'p'])), {
        result: `["${crypto.createHash('sha256').update('salted').digest('hex')}"]`,
    });
    await step('private data, organisations chosen by its policy', async () => {
        const transaction = await own.newProposal('run', script(['pput', 'pair', 'q', '1'])).endorse();
        await settled(await transaction.submit());
        return endorsers(transaction);
    }, { result: [BILLING, SERVICE] });
    await step('transient data and a public policy that needs others', () => own.newProposal('run', {
        ...script(['pput_transient', 'pair', 'r', 'secret'], ['put', 'r', '1']),
        transientData: { secret: 'salted' },
    }).endorse(), { error: 'EndorseError', code: FAILED_PRECONDITION, organizations: [] });
    await step('transient data at a gateway without the chaincode', () => contractAt(BILLING, { chaincode: 'away' })
        .newProposal('run', { ...script(['get', 'a']), transientData: { any: 'thing' } }).endorse(), {
        error: 'EndorseError', code: FAILED_PRECONDITION, organizations: [],
    });
    await step('evaluated without the chaincode here', () =>
        contractAt(BILLING, { chaincode: 'away' }).evaluate('run', script(['peer'])), { result: '["ServiceMSP"]' });
    await step('endorsed without the chaincode here', async () =>
        endorsers(await contractAt(BILLING, { chaincode: 'away' }).newProposal('run', script(['put', 'a', '1'])).endorse()), {
        result: [SERVICE],
    });
}

// --- failures

async function refusals() {
    await step('evaluate what the contract refuses', () => own.evaluate('status', status(404, 'not here', 'why')), {
        error: 'GatewayError', code: UNKNOWN, organizations: [SERVICE],
    });
    await step('endorse what the contract refuses', () => own.newProposal('status', status(404, 'not here', 'why')).endorse(), {
        error: 'EndorseError', code: ABORTED, organizations: [SERVICE],
    });
    await step('evaluate what the contract fails at', () => own.evaluate('status', status(500, 'broken')), {
        error: 'GatewayError', code: UNKNOWN, organizations: [SERVICE],
    });
    await step('endorse what the contract fails at', () => own.newProposal('status', status(500, 'broken')).endorse(), {
        error: 'EndorseError', code: ABORTED, organizations: [SERVICE],
    });
    await step('endorse at named organisations what the contract refuses', () => own.newProposal('status', {
        ...status(403, 'not you'), endorsingOrganizations: [BILLING, CUSTOMER],
    }).endorse(), { error: 'EndorseError', code: ABORTED, organizations: [BILLING, CUSTOMER] });
    await step('evaluate a function that is not there', () => own.evaluate('walk'), {
        error: 'GatewayError', code: UNKNOWN, organizations: [SERVICE],
    });
    await step('answers that differ', () => own.newProposal('run', script(['peer'])).endorse(), {
        error: 'EndorseError', code: ABORTED,
    });
    for (const chaincode of ['unknown', 'dead']) {
        const contract = contractAt(SERVICE, { chaincode });
        await step(`evaluate at a chaincode that is ${chaincode}`, () => contract.evaluate('run', script()), {
            error: 'GatewayError', code: chaincode === 'dead' ? ABORTED : FAILED_PRECONDITION,
        });
        await step(`endorse at a chaincode that is ${chaincode}`, () => contract.newProposal('run', script()).endorse(), {
            error: 'EndorseError', code: chaincode === 'dead' ? ABORTED : FAILED_PRECONDITION,
        });
        await step(`endorse at a named organisation's chaincode that is ${chaincode}`, () => contract.newProposal('run', {
            ...script(), endorsingOrganizations: [BILLING],
        }).endorse(), { error: 'EndorseError', code: chaincode === 'dead' ? ABORTED : UNAVAILABLE });
    }
    const half = contractAt(SERVICE, { chaincode: 'half' });
    await step('evaluate where the own process is dead', () => half.evaluate('run', script(['peer'], ['get', 'a'])).then(
        (result) => JSON.parse(utf8.decode(result))[1]), { result: null });
    await step('endorse where the own process is dead', () => half.newProposal('run', script(['put', 'a', '1'])).endorse(), {
        error: 'EndorseError', code: ABORTED, organizations: [SERVICE],
    });
    await step('endorse where one of two processes is dead', () => contractAt(CUSTOMER, { chaincode: 'half' })
        .newProposal('run', script(['put', 'a', '1'])).endorse().then(endorsers), { result: [BILLING, CUSTOMER] });
    const elsewhere = contractAt(SERVICE, { channel: 'elsewhere' });
    await step('evaluate on a channel that is not there', () => elsewhere.evaluate('run', script()), {
        error: 'GatewayError', code: UNAVAILABLE,
    });
    await step('endorse on a channel that is not there', () => elsewhere.newProposal('run', script()).endorse(), {
        error: 'EndorseError', code: FAILED_PRECONDITION,
    });
    await step('submit on a channel that is not there', async () => {
        const transaction = await own.newProposal('run', script(['put', 'a', '4'])).endorse();
        return (await onAnotherChannel(transaction, 'elsewhere')).submit();
    }, { error: 'SubmitError', code: FAILED_PRECONDITION });
    await step('status on a channel that is not there', () =>
        commitAt(SERVICE, 'ab'.repeat(32), { channel: 'elsewhere' }).getStatus(), {
        error: 'CommitStatusError', code: PERMISSION_DENIED,
    });
    // The peer looks at the same deadline. Where it is first, it resets the call, which the client then calls cancelled.
    await step('status of a transaction that never comes', async () => {
        try {
            return await commitAt(SERVICE, 'ab'.repeat(32)).getStatus({ deadline: Date.now() + SHORT_MS });
        } catch (error) {
            const { error: kind, code } = describe(error);
            return [kind, code === CANCELLED ? DEADLINE_EXCEEDED : code];
        }
    }, { result: ['CommitStatusError', DEADLINE_EXCEEDED] });
}

async function identities() {
    const auditor = contractAt(SERVICE, { identity: 'AuditorMSP/auditor' });
    await step('orderers take nothing from auditors', async () =>
        (await auditor.newProposal('run', script(['put', 'a', '5'])).endorse()).submit(), {
        error: 'SubmitError', code: ABORTED,
    });
    for (const [name, options] of [
        ['a certificate of another authority', { identity: 'stranger' }],
        ['the key of somebody else', { signer: `${BILLING}/agent` }],
    ]) {
        const contract = contractAt(SERVICE, options);
        await step(`evaluate with ${name}`, () => contract.evaluate('run', script(['get', 'a'])), {
            error: 'GatewayError', code: FAILED_PRECONDITION,
        });
        await step(`endorse with ${name}`, () => contract.newProposal('run', script(['get', 'a'])).endorse(), {
            error: 'EndorseError', code: ABORTED, organizations: [SERVICE],
        });
    }
    await step('submit signed with the key of somebody else', async () => {
        const transaction = await own.newProposal('run', script(['put', 'a', '5'])).endorse();
        const thief = gatewayAt(SERVICE, `${SERVICE}/agent`, { signer: `${BILLING}/agent` });
        return thief.newTransaction(transaction.getBytes()).submit();
    }, { error: 'SubmitError', code: ABORTED });
    await step('status for a stranger', () => commitAt(SERVICE, 'ab'.repeat(32), { identity: 'stranger' }).getStatus(), {
        error: 'CommitStatusError', code: PERMISSION_DENIED,
    });
    await step('events for a stranger', () => first(networkAt(SERVICE, 'stranger').getChaincodeEvents('session')), {
        error: 'GatewayError', code: PERMISSION_DENIED,
    });
    await step('blocks for a stranger', () => first(networkAt(SERVICE, 'stranger').getBlockEvents()), {
        error: 'Error', message: 'Unexpected status response: 403',
    });
}

async function verdicts() {
    await step('two writers of one key', async () => {
        await commit(own, 'run', script(['put', 'counter', '1']));
        const change = script(['get', 'counter'], ['put', 'counter', '2']);
        const transactions = [
            await own.newProposal('run', change).endorse(),
            await own.newProposal('run', change).endorse(),
        ];
        await settled(await transactions[0].submit());
        return settled(await transactions[1].submit());
    }, { error: 'CommitError', code: 'MVCC_READ_CONFLICT' });
    await step('a row in a range that was read', async () => {
        const reader = await own.newProposal('run', script(['range', 'count', 'd'], ['put', 'total', '1'])).endorse();
        await commit(own, 'run', script(['put', 'counters', '1']));
        return settled(await reader.submit());
    }, { error: 'CommitError', code: 'PHANTOM_READ_CONFLICT' });
    await step('the policy of a key asks for others', async () => {
        await commit(own, 'run', script(['put', 'locked', '1'], ['set_policy', 'locked', [BILLING, CUSTOMER]]));
        const named = { endorsingOrganizations: [SERVICE, CUSTOMER] };
        return commit(own, 'run', { ...script(['put', 'locked', '2']), ...named });
    }, { error: 'CommitError', code: 'ENDORSEMENT_POLICY_FAILURE' });
    await step('the policy of a key chooses organisations', async () => {
        const transaction = await own.newProposal('run', script(['put', 'locked', '2'])).endorse();
        await settled(await transaction.submit());
        return endorsers(transaction);
    }, { result: [BILLING, CUSTOMER] });
    await step('submitTransaction tells an invalid transaction', async () => {
        const named = { endorsingOrganizations: [SERVICE] };
        return own.submit('run', { ...script(['put', 'a', '6']), ...named });
    }, { error: 'CommitError', code: 'ENDORSEMENT_POLICY_FAILURE' });
    await step('the same transaction twice', async () => {
        const transaction = await own.newProposal('run', script(['put', 'twice', '1'])).endorse();
        await settled(await transaction.submit());
        return codeName((await settled(await transaction.submit())).code);
    }, { result: 'VALID' });
}

// --- events

async function first(events) {
    return (await take(events, 1))[0];
}

async function take(opening, count, done = () => undefined) {
    const events = await opening;
    const found = [];
    const timer = setTimeout(() => events.close(), PATIENCE_MS);
    try {
        for await (const event of events) {
            found.push(event);
            await done(event);
            if (found.length === count) {
                break;
            }
        }
    } finally {
        clearTimeout(timer);
        events.close();
    }
    return found;
}

/** Give a promise that is waited for later: it may fail before. */
function soon(promise) {
    promise.catch(() => undefined);
    return promise;
}

async function chaincodeEvents() {
    const network = networkAt(SERVICE);
    const submit = async (number) => {
        const submitted = await own.submitAsync('status', status(200, '', '', `event${number}`));
        return settled(submitted);
    };
    const names = (events) => events.map((event) => [event.eventName, plain(event.payload)]);
    const numbered = (...numbers) => numbers.map((number) => [`event${number}`, `payload of event${number}`]);
    const { blockNumber: start, transactionId: firstId } = await submit(1);

    await step('events from a block', async () => {
        await commit(own, 'run', script(['put', 'quiet', '1'])); // no event
        await submit(2);
        const events = await take(network.getChaincodeEvents('session', { startBlock: start }), 2);
        const facts = events.map((event) => [Number(event.blockNumber - start), event.chaincodeName]);
        return [...names(events), facts, events[0].transactionId === firstId];
    }, { result: [...numbered(1, 2), [[0, 'session'], [2, 'session']], true] });
    await step('events as they come', async () => {
        const coming = soon(take(network.getChaincodeEvents('session'), 2));
        await submit(3);
        await submit(4);
        return names(await coming);
    }, { result: numbered(3, 4) });
    await step('events of auditors', async () => {
        const events = networkAt(BILLING, 'AuditorMSP/auditor').getChaincodeEvents('session', { startBlock: start });
        return names(await take(events, 4));
    }, { result: numbered(1, 2, 3, 4) });
    await step('invalid transactions have no events', async () => {
        const named = { endorsingOrganizations: [SERVICE] };
        await own.submit('status', { ...status(200, '', '', 'invalid'), ...named }).catch(() => undefined);
        await submit(5);
        return names(await take(network.getChaincodeEvents('session', { startBlock: start }), 5));
    }, { result: numbered(1, 2, 3, 4, 5) });
    await step('the last event that was set', async () => {
        const verdict = await own.submitAsync('run', script(['event', 'one', '1'], ['event', 'two', '2'])).then(settled);
        const options = { startBlock: verdict.blockNumber };
        return names(await take(network.getChaincodeEvents('session', options), 1));
    }, { result: [['two', '2']] });
    for (const [kind, checkpointer] of [
        ['memory', checkpointers.inMemory()],
        ['a file', await checkpointers.file(path.join(settings.folder, 'checkpoint.json'))],
    ]) {
        await step(`events after a checkpoint in ${kind}`, async () => {
            const options = { startBlock: start, checkpoint: checkpointer };
            const keep = (event) => checkpointer.checkpointChaincodeEvent(event);
            const before = await take(network.getChaincodeEvents('session', options), 2, keep);
            const after = await take(network.getChaincodeEvents('session', options), 2, keep);
            const last = await take(network.getChaincodeEvents('session', options), 1, keep);
            return [before, after, last].map(names);
        }, { result: [numbered(1, 2), numbered(3, 4), numbered(5)] });
    }
    await step('events after a checkpoint inside a block', async () => {
        // Whether several transactions come into one block is the orderers' affair: more are sent than fit into one.
        const sent = await Promise.all([...Array(12).keys()].map((number) =>
            own.submitAsync('status', status(200, '', '', `many${number}`))));
        const ids = new Set(sent.map((submitted) => submitted.getTransactionId()));
        const blocks = [];
        for (const submitted of sent) {
            blocks.push((await settled(submitted)).blockNumber);
        }
        const startBlock = blocks.reduce((one, other) => (other < one ? other : one));
        const all = await take(network.getChaincodeEvents('session', { startBlock }), sent.length);
        const place = all.findIndex((event, number) => event.blockNumber === all[number + 1]?.blockNumber);
        const checkpoint = checkpointers.inMemory();
        await checkpoint.checkpointChaincodeEvent(all[place]);
        const rest = await take(network.getChaincodeEvents('session', { checkpoint }), all.length - place - 1);
        const same = rest.every((event, number) => event.transactionId === all[place + 1 + number].transactionId);
        return { isInside: place >= 0, all: all.every((event) => ids.has(event.transactionId)), same };
    }, { result: { isInside: true, all: true, same: true } });
    await step('events of a chaincode that is not there', async () => {
        const events = await network.getChaincodeEvents('unknown', { startBlock: start });
        const none = soon(take(events, 1));
        setTimeout(() => events.close(), SHORT_MS / 5);
        return none;
    }, { error: 'GatewayError', code: 'CANCELLED' });
    await step('events of a channel that is not there', () =>
        first(gatewayAt(SERVICE).getNetwork('elsewhere').getChaincodeEvents('session')), {
        error: 'GatewayError', code: PERMISSION_DENIED,
    });
}

async function blockEvents() {
    const network = networkAt(SERVICE);
    const { blockNumber: start } = await own.submitAsync('status', status(200, '', '', 'block')).then(settled);
    await own.submit('run', { ...script(['put', 'a', '7']), endorsingOrganizations: [SERVICE] }).catch(() => undefined);
    await commit(own, 'run', { ...script(['pput', 'pair', 's', '1']), endorsingOrganizations: [SERVICE, BILLING] });
    const range = { startBlock: start };

    await step('the first blocks', async () =>
        (await take(network.getBlockEvents({ startBlock: 0n }), 3)).map((block) => shownBlock(block, 0n)));
    await step('blocks from a number', async () =>
        (await take(network.getBlockEvents(range), 3)).map((block) => shownBlock(block, start)));
    await step('filtered blocks from a number', async () =>
        (await take(network.getFilteredBlockEvents(range), 3)).map((block) => shownFiltered(block, start)));
    await step('the first filtered blocks', async () =>
        (await take(network.getFilteredBlockEvents({ startBlock: 0n }), 2)).map((block) => shownFiltered(block, 0n)));
    await step('blocks with private data at a member', async () =>
        (await take(network.getBlockAndPrivateDataEvents(range), 3)).map((it) => shownPrivate(it, start)));
    await step('blocks with private data elsewhere', async () =>
        (await take(networkAt(CUSTOMER).getBlockAndPrivateDataEvents(range), 3)).map((it) => shownPrivate(it, start)));
    await step('blocks as they come', async () => {
        const coming = soon(take(network.getBlockEvents(), 1));
        const { blockNumber } = await own.submitAsync('run', script(['put', 'a', '8'])).then(settled);
        return (await coming).map((block) => shownBlock(block, blockNumber));
    });
    await step('blocks after a checkpoint', async () => {
        const checkpoint = checkpointers.inMemory();
        const keep = (block) => checkpoint.checkpointBlock(BigInt(block.getHeader().getNumber()));
        const options = { ...range, checkpoint };
        const before = await take(network.getBlockEvents(options), 2, keep);
        const after = await take(network.getBlockEvents(options), 1, keep);
        return [...before, ...after].map((block) => block.getHeader().getNumber() - Number(start));
    }, { result: [0, 1, 2] });
    await step('blocks of a channel that is not there', () =>
        first(gatewayAt(SERVICE).getNetwork('elsewhere').getBlockEvents()), {
        error: 'Error', message: 'Unexpected status response: 404',
    });
}

function shownBlock(block, start) {
    const flags = [...block.getMetadata().getMetadataList_asU8()[2]];
    return {
        number: block.getHeader().getNumber() - Number(start),
        hashes: [block.getHeader().getPreviousHash_asU8().length, block.getHeader().getDataHash_asU8().length],
        metadata: block.getMetadata().getMetadataList_asU8().map((it) => it.length > 0),
        transactions: block.getData().getDataList_asU8().map((it, number) => shownEnvelope(it, flags[number])),
    };
}

function shownEnvelope(content, flag) {
    const payload = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(content).getPayload_asU8());
    const header = common.ChannelHeader.deserializeBinary(payload.getHeader().getChannelHeader_asU8());
    const found = { type: header.getType(), channel: header.getChannelId(), code: codeName(flag), id: header.getTxId() };
    if (header.getType() !== common.HeaderType.ENDORSER_TRANSACTION) {
        return found;
    }
    const [action] = peer.Transaction.deserializeBinary(payload.getData_asU8()).getActionsList();
    const endorsed = peer.ChaincodeActionPayload.deserializeBinary(action.getPayload_asU8()).getAction();
    const response = peer.ProposalResponsePayload.deserializeBinary(endorsed.getProposalResponsePayload_asU8());
    const result = peer.ChaincodeAction.deserializeBinary(response.getExtension_asU8());
    const event = peer.ChaincodeEvent.deserializeBinary(result.getEvents_asU8());
    return {
        ...found,
        chaincode: [result.getChaincodeId().getName(), result.getChaincodeId().getVersion()],
        endorsements: endorsed.getEndorsementsList().length,
        event: [event.getEventName(), plain(event.getPayload_asU8())],
        // What organisations approved names their packages, which are the network's own.
        ...(result.getChaincodeId().getName() === '_lifecycle' ? {} : { results: hex(result.getResults_asU8()) }),
    };
}

function shownFiltered(block, start) {
    return {
        channel: block.getChannelId(),
        number: block.getNumber() - Number(start),
        transactions: block.getFilteredTransactionsList().map((it) => ({
            type: it.getType(),
            code: codeName(it.getTxValidationCode()),
            id: it.getTxid(),
            events: (it.getTransactionActions()?.getChaincodeActionsList() ?? []).map((action) => {
                const event = action.getChaincodeEvent();
                return [event.getChaincodeId(), event.getEventName(), event.getPayload_asU8().length, event.getTxId()];
            }),
        })),
    };
}

function shownPrivate(received, start) {
    const found = [];
    received.getPrivateDataMapMap().forEach((sets, number) => {
        found.push([number, hex(sets.serializeBinary())]);
    });
    return { number: received.getBlock().getHeader().getNumber() - Number(start), found };
}

async function main() {
    for (const part of [transactions, organizations, refusals, identities, verdicts, chaincodeEvents, blockEvents]) {
        await part();
    }
    clients.forEach((client) => client.close());
    process.exitCode = failures > 0 ? 1 : 0;
}

main().catch((error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(2);
});
