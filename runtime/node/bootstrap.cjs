// SPDX-License-Identifier: Apache-2.0
'use strict';

// The Node side of a worker: speaks docs/worker-protocol.md on the channel, and runs the handler.
//
//   HELLO -> (INIT) -> load the handler -> READY -> requests -> (DRAIN) -> exit 0
//         ^                                ^      -> (CHECKPOINT) -> CHECKPOINT, frozen
//         |                                +------------- (RESTORED), in each clone
//         | -> (CHECKPOINT) -> CHECKPOINT, frozen: the runtime without a function
//         +---------------------- (RESTORED), in each clone

const fs = require('node:fs');
const frames = require('./channel.cjs');
const { Stream, KIND_EVENT } = require('./stream.cjs');
const { describe } = require('./errors.cjs');
const log = require('./log.cjs');
const snapshot = require('./snapshot.cjs');

const PROTOCOL = 1;
const EXIT_FLUSH_MS = 1000;
// What the manifest preloads into Node itself.
const PRELOADED = '/runtime/preload/node.so';

const channel = new frames.Channel(Number(process.env.NESTLET_CHANNEL_FD ?? 3));
const streams = new Map();
let begun = false;
let begunAt = 0;
let ready = false;
let draining = false;
// It has come to rest, and is to be frozen.
let resting = false;
let rehearsing = false;
// The interface's module: begin and, for events, gather.
let events = null;
let web = null;

function onInit(flags, id, buffer, start, end) {
	if (id !== 0 || begun || resting) {
		channel.fail('an INIT came that can\'t be');
		return;
	}
	begun = true;
	const init = parse('INIT', buffer, start, end);
	if (init !== undefined) load(init).catch(initFailed);
}

async function load(init) {
	const codeDir = init.codeDir ?? process.env.NESTLET_FUNCTION_DIR ?? '/function';
	setEnvironment(init, codeDir);
	if (init.snapshot && !snapshot.isPrepared()) snapshot.prepare();
	log.track(init.concurrency > 1);
	process.chdir(codeDir);
	events = require('./event.cjs');
	events.installGlobals();
	require('./context.cjs').configure(init);
	const { load: loadHandler } = require('./handler.cjs');
	const handler = await loadHandler(codeDir, init.handler, init.interface);
	if (init.interface === 'http') {
		web = require('./http.cjs');
		web.configure(handler);
	} else if (init.interface === 'event') {
		events.configure(handler);
	} else {
		throw new Error(`the Node runtime has no interface '${init.interface}': it knows event and http`);
	}
	ready = true;
	channel.json(frames.READY, 0, { initMs: Math.round((performance.now() - begunAt) * 10) / 10 });
}

// What functions written for AWS look for. What the function's own configuration sets stays.
function setEnvironment(init, codeDir) {
	snapshot.rememberEnvironment();
	delete process.env.NESTLET_CHANNEL_FD;
	dropPreloaded();
	const known = {
		LAMBDA_TASK_ROOT: codeDir,
		AWS_LAMBDA_FUNCTION_NAME: init.function,
		AWS_LAMBDA_FUNCTION_VERSION: init.version,
		AWS_LAMBDA_FUNCTION_MEMORY_SIZE: init.memoryMb,
		_HANDLER: init.handler,
	};
	for (const [name, value] of Object.entries(known)) process.env[name] ??= String(value);
}

// It is not for programs that the function starts; what else is preloaded is.
function dropPreloaded() {
	const others = process.env.LD_PRELOAD?.split(':').filter((name) => name !== PRELOADED);
	if (others?.length > 0) process.env.LD_PRELOAD = others.join(':');
	else delete process.env.LD_PRELOAD;
}

function initFailed(error) {
	const told = describe(error);
	log.error(0, [`${told.errorType}: ${told.errorMessage}`, ...told.stackTrace.slice(1)].join('\n'));
	channel.json(frames.ERROR, 0, told);
	process.exit(1);
}

function onRequest(flags, id, buffer, start, end) {
	if (id === 0 || !ready || draining || resting || streams.has(id)) {
		channel.fail(`a REQUEST came that can't be: stream ${id}`);
		return;
	}
	const stream = new Stream(channel, id, log.leave, onClosed);
	const body = stream.parse(buffer, start, end);
	if (body === -1 || (web !== null && stream.kind === KIND_EVENT)) {
		channel.fail(`the head of request ${id} is malformed`);
		return;
	}
	streams.set(id, stream);
	const whole = (flags & frames.FIN) !== 0;
	if (web !== null) web.begin(stream, Buffer.from(buffer.subarray(body, end)), whole);
	else if (whole) events.begin(stream, buffer, body, end);
	else events.gather(stream, Buffer.from(buffer.subarray(body, end)));
}

function onClosed(stream) {
	streams.delete(stream.id);
	if (draining && streams.size === 0) setImmediate(() => process.exit(0));
}

function onBody(flags, id, buffer, start, end) {
	const stream = streams.get(id);
	if (id === 0 || end - start > frames.MAX_BODY) {
		channel.fail(`a BODY came that can't be: stream ${id}, ${end - start} bytes`);
		return;
	}
	if (stream === undefined || stream.cancelled) return;
	if (stream.consumer === null) {
		channel.fail(`a BODY came after the end of request ${id}`);
		return;
	}
	const { consumer } = stream;
	const last = (flags & frames.FIN) !== 0;
	if (last) stream.consumer = null;
	if (end > start) log.enter(stream, take, consumer, Buffer.from(buffer.subarray(start, end)));
	if (last) log.enter(stream, finish, consumer);
}

function take(consumer, chunk) {
	consumer.data(chunk);
}

function finish(consumer) {
	consumer.end();
}

function onCredit(flags, id, buffer, start, end) {
	if (id === 0 || end - start !== 4) {
		channel.fail('a CREDIT came that can\'t be');
		return;
	}
	streams.get(id)?.addCredit(buffer.readUInt32LE(start));
}

function onCancel(flags, id) {
	if (id === 0) channel.fail('a CANCEL of stream 0 came');
	else streams.get(id)?.cancel();
}

function onPing(flags, id, buffer, start, end) {
	if (id !== 0 || end - start !== 8) channel.fail('a PING came that can\'t be');
	else channel.frame(frames.PONG, 0, 0, buffer.subarray(start, end));
}

function onDrain() {
	draining = true;
	if (streams.size === 0) process.exit(0);
}

function onCheckpoint(flags, id, buffer, start, end) {
	const told = parse('CHECKPOINT', buffer, start, end);
	if (told === undefined) return;
	if (id === 0 && !begun && !resting) {
		restBare(told);
		return;
	}
	if (id !== 0 || !ready || draining || resting || streams.size > 0 || !snapshot.isPrepared()) {
		channel.fail(`a CHECKPOINT came that can't be: ${streams.size} requests are open`);
		return;
	}
	resting = true;
	snapshot.rest(told.hookTimeoutMs, web !== null, begunAt > 0, false, rehearse).then(() => {
		log.finish();
		channel.json(frames.CHECKPOINT, 0, {});
	}).catch(initFailed);
}

// The runtime alone is to be frozen, for any function: what handlers need is loaded now.
function restBare(told) {
	resting = true;
	snapshot.rememberEnvironment();
	snapshot.prepare();
	for (const part of ['./context.cjs', './handler.cjs', './event.cjs', './http.cjs']) require(part);
	snapshot.rest(told.hookTimeoutMs, false, false, true, rehearse).then(() => {
		log.finish();
		channel.json(frames.CHECKPOINT, 0, {});
	}).catch(initFailed);
}

async function rehearse(told) {
	const bytes = Buffer.from(JSON.stringify(told));
	rehearsing = true;
	await onRestored(0, 0, bytes, 0, bytes.length);
	rehearsing = false;
	// What sends an answer that comes right after another frame.
	await new Promise((resolve) => setImmediate(resolve));
	channel.flushTurn();
}

// Returns a promise only for rehearse().
function onRestored(flags, id, buffer, start, end) {
	const told = parse('RESTORED', buffer, start, end);
	if (told === undefined) return undefined;
	if (id !== 0 || !resting) {
		channel.fail('a RESTORED came to a worker that was not frozen');
		return undefined;
	}
	const began = performance.now();
	if (!begun) {
		// Without a function there are no hooks: INIT follows.
		snapshot.become(told);
		if (!rehearsing) begunAt = began;
		resting = rehearsing;
		return undefined;
	}
	return snapshot.wake(told, rehearsing).then(() => {
		if (rehearsing) return;
		resting = false;
		channel.json(frames.READY, 0, { initMs: Math.round((performance.now() - began) * 10) / 10 });
		// At once, so that it does not count as what the first answer comes after.
		channel.flush();
	}).catch(initFailed);
}

function parse(what, buffer, start, end) {
	try {
		return JSON.parse(buffer.utf8Slice(start, end));
	} catch (error) {
		channel.fail(`${what} is not JSON: ${error.message}`);
		return undefined;
	}
}

function onChannelClosed(reason) {
	// Nothing can be told on the channel any more.
	try {
		fs.writeSync(2, `nestlet: worker exits: ${reason}\n`);
	} catch {
		// Standard error went with the host.
	}
	process.reallyExit(1);
}

// An error outside any handler's reach: every open request is answered with it, as no one knows
// whose it was, and the process, whose state is unknown, ends.
function onUncaught(error, origin) {
	const told = describe(error);
	if (origin === 'unhandledRejection') {
		told.errorMessage = `${told.errorType}: ${told.errorMessage}`;
		told.errorType = 'Runtime.UnhandledPromiseRejection';
	}
	log.error(0, [`${told.errorType}: ${told.errorMessage}`, ...told.stackTrace.slice(1)].join('\n'));
	if (!ready || resting) channel.json(frames.ERROR, 0, told);
	for (const stream of [...streams.values()]) stream.fail(told);
	process.exit(1);
}

function onExit() {
	log.finish();
	channel.drain(EXIT_FLUSH_MS, 0);
}

log.install(channel);
process.on('exit', onExit);
process.on('uncaughtException', onUncaught);
const table = new Array(16).fill(null);
table[frames.INIT] = onInit;
table[frames.REQUEST] = onRequest;
table[frames.BODY] = onBody;
table[frames.CREDIT] = onCredit;
table[frames.CANCEL] = onCancel;
table[frames.PING] = onPing;
table[frames.DRAIN] = onDrain;
table[frames.CHECKPOINT] = onCheckpoint;
table[frames.RESTORED] = onRestored;
channel.json(frames.HELLO, 0, {
	protocol: PROTOCOL,
	runtime: 'nodejs',
	runtimeVersion: process.versions.node,
});
channel.start(table, onChannelClosed);
