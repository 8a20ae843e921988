// The script contract on Fabric's Node shim and contract API: what go_shim/ does on Go's shim, operation by operation.
// This shim has neither multiple reads nor write batches: here they are single ones, with the same effect.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const { Contract, JSONSerializer } = require('fabric-contract-api');
const shim = require('fabric-shim');
const ChaincodeFromContract = require('fabric-shim/lib/contract-spi/chaincodefromcontract.js');

class ScriptContract extends Contract {
    constructor() {
        super('judge');
    }

    async run(context, script) {
        return encode(await new Script(context, false).run(JSON.parse(script)));
    }

    async texts(context, script) {
        return encode(await new Script(context, true).run(JSON.parse(script)));
    }
}

class Script {
    constructor(context, texts) {
        this.context = context;
        this.stub = context.stub;
        this.texts = texts;
    }

    async run(steps) {
        const results = [];
        for (const step of steps) {
            results.push(await this.result(step));
        }
        return results;
    }

    async result([name, ...given]) {
        try {
            if (!Object.hasOwn(operations, name)) {
                throw new Error('no such operation');
            }
            return await operations[name](this.stub, given, this);
        } catch (error) {
            return { error: this.texts ? error.message : true };
        }
    }
}

const operations = {
    get: async (stub, [key]) => value(await stub.getState(key)),
    gets: async (stub, [keys]) => each(keys, async (key) => value(await stub.getState(key))),
    put: async (stub, [key, content]) => done(await stub.putState(key, Buffer.from(content))),
    del: async (stub, [key]) => done(await stub.deleteState(key)),
    put_many: async (stub, [prefix, count, content]) => {
        for (let number = 0; number < count; number++) {
            await stub.putState(prefix + String(number).padStart(4, '0'), Buffer.from(content));
        }
        return true;
    },
    range: async (stub, [start, end, limit]) => rows(await stub.getStateByRange(start, end), limit),
    page: async (stub, [start, end, size, bookmark]) =>
        page(await stub.getStateByRangeWithPagination(start, end, size, bookmark)),
    put_composite: async (stub, [type, attributes, content]) =>
        done(await stub.putState(stub.createCompositeKey(type, attributes), Buffer.from(content))),
    split: async (stub, [type, attributes]) => {
        const found = stub.splitCompositeKey(stub.createCompositeKey(type, attributes));
        return { type: hex(found.objectType), attributes: found.attributes.map(hex) };
    },
    partial: async (stub, [type, attributes, limit]) =>
        rows(await stub.getStateByPartialCompositeKey(type, attributes), limit),
    partial_page: async (stub, [type, attributes, size, bookmark]) =>
        page(await stub.getStateByPartialCompositeKeyWithPagination(type, attributes, size, bookmark)),
    history: async (stub, [key]) => {
        const found = await rest(await stub.getHistoryForKey(key));
        return found.map((row) => [row.txId, row.isDelete ? null : row.value.toString('hex'), nanoseconds(row.timestamp)]);
    },
    query: async (stub, [query]) => rows(await stub.getQueryResult(query)),
    query_page: async (stub, [query, size, bookmark]) =>
        page(await stub.getQueryResultWithPagination(query, size, bookmark)),

    pget: async (stub, [collection, key]) => value(await stub.getPrivateData(collection, key)),
    pgets: async (stub, [collection, keys]) =>
        each(keys, async (key) => value(await stub.getPrivateData(collection, key))),
    phash: async (stub, [collection, key]) => value(await stub.getPrivateDataHash(collection, key)),
    pput: async (stub, [collection, key, content]) =>
        done(await stub.putPrivateData(collection, key, Buffer.from(content))),
    pput_transient: async (stub, [collection, key, name]) =>
        done(await stub.putPrivateData(collection, key, stub.getTransient().get(name))),
    pdel: async (stub, [collection, key]) => done(await stub.deletePrivateData(collection, key)),
    ppurge: async (stub, [collection, key]) => done(await stub.purgePrivateData(collection, key)),
    prange: async (stub, [collection, start, end, limit]) =>
        rows((await stub.getPrivateDataByRange(collection, start, end)).iterator, limit),
    ppartial: async (stub, [collection, type, attributes, limit]) =>
        rows((await stub.getPrivateDataByPartialCompositeKey(collection, type, attributes)).iterator, limit),
    pquery: async (stub, [collection, query]) =>
        rows((await stub.getPrivateDataQueryResult(collection, query)).iterator),

    policy: async (stub, [key]) => value(await stub.getStateValidationParameter(key)),
    set_policy: async (stub, [key, policy]) => done(await stub.setStateValidationParameter(key, policyBytes(policy))),
    ppolicy: async (stub, [collection, key]) => value(await stub.getPrivateDataValidationParameter(collection, key)),
    set_ppolicy: async (stub, [collection, key, policy]) =>
        done(await stub.setPrivateDataValidationParameter(collection, key, policyBytes(policy))),

    event: async (stub, [name, payload]) => done(stub.setEvent(name, Buffer.from(payload))),
    invoke: async (stub, [name, called, channel]) => {
        const response = await stub.invokeChaincode(name, called, channel);
        return { status: response.status, message: response.message, payload: response.payload.toString('hex') };
    },
    peer: async (stub) => stub.getMspID(),
    batch: async (stub, [steps], script) => script.run(steps),
    facts: async (stub) => {
        const { signatureHeader } = stub.getSignedProposal().proposal.header;
        return {
            arguments: stub.getBufferArgs().map((argument) => argument.toString('hex')),
            binding: stub.getBinding(),
            channel: stub.getChannelID(),
            creator: digest(signatureHeader.creator_u8),
            timestamp: nanoseconds(stub.getTxTimestamp()),
            transient: Object.fromEntries([...stub.getTransient()].map(([name, content]) => [name, hex(content)])),
            tx_id: stub.getTxID(),
        };
    },
    client: async (stub, [name], script) => {
        const identity = script.context.clientIdentity;
        return { id: base64(identity.getID()), msp_id: identity.getMSPID(), attribute: identity.getAttributeValue(name) };
    },
};

// --- results

function done() {
    return true;
}

function hex(content) {
    return Buffer.from(content).toString('hex');
}

function base64(text) {
    return Buffer.from(text).toString('base64');
}

function digest(content) {
    return crypto.createHash('sha256').update(content).digest('hex');
}

function value(content) {
    return content === undefined || content.length === 0 ? null : hex(content);
}

// Too large for a number of this language.
function nanoseconds(timestamp) {
    return BigInt(timestamp.seconds.toString()) * 1000000000n + BigInt(timestamp.nanos);
}

async function each(keys, read) {
    const found = [];
    for (const key of keys) {
        found.push(await read(key));
    }
    return found;
}

async function rest(iterator, limit = 0) {
    const found = [];
    while (limit === 0 || found.length < limit) {
        const row = await iterator.next();
        if (row.done) {
            break;
        }
        found.push(row.value);
    }
    await iterator.close();
    return found;
}

async function rows(iterator, limit) {
    return (await rest(iterator, limit)).map((row) => [hex(row.key), hex(row.value)]);
}

async function page({ iterator, metadata }) {
    return { rows: await rows(iterator), bookmark: hex(metadata.bookmark), fetched: metadata.fetchedRecordsCount };
}

function policyBytes(policy) {
    if (typeof policy === 'string') {
        return Buffer.from(policy, 'hex');
    }
    const builder = new shim.KeyEndorsementPolicy();
    builder.addOrgs('PEER', ...[...policy].sort());
    return builder.getPolicy();
}

// JSON with its names sorted, as the other languages write it.
function encode(result) {
    if (typeof result === 'bigint') {
        return result.toString();
    }
    if (Array.isArray(result)) {
        return `[${result.map(encode).join(',')}]`;
    }
    if (result !== null && typeof result === 'object') {
        const names = Object.keys(result).sort();
        return `{${names.map((name) => `${JSON.stringify(name)}:${encode(result[name])}`).join(',')}}`;
    }
    return JSON.stringify(result);
}

// --- serving

const serializers = { transaction: 'jsonSerializer', serializers: { jsonSerializer: JSONSerializer } };
const contract = new ChaincodeFromContract([ScriptContract], serializers, {}, 'judge', '1.0');

// Answers as given when `status` is called, below the contract API; everything else is the contract's.
const chaincode = {
    Init: (stub) => contract.Init(stub),
    Invoke: async (stub) => {
        const [name, ...given] = stub.getStringArgs();
        if (name !== 'status') {
            return contract.Invoke(stub);
        }
        const [status, message, payload, event] = given;
        if (event !== '') {
            stub.setEvent(event, Buffer.from(`payload of ${event}`));
        }
        return { status: Number(status), message, payload: Buffer.from(payload) };
    },
};

const read = (variable) => fs.readFileSync(process.env[variable]);
shim.server(chaincode, {
    ccid: process.env.CHAINCODE_ID,
    address: process.env.CHAINCODE_SERVER_ADDRESS,
    tlsProps: { key: read('CHAINCODE_TLS_KEY'), cert: read('CHAINCODE_TLS_CERT'), clientCACerts: read('CHAINCODE_CLIENT_CA_CERT') },
}).start();
