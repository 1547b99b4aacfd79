// SPDX-License-Identifier: Apache-2.0
'use strict';

// What a worker does about its own snapshot: it comes to rest before it is frozen, and each clone,
// before its first request, becomes one of its own (docs/worker-protocol.md, "Snapshots").
//
// Three sources of chance go on in a clone where its siblings' do: OpenSSL's generator, which is
// reseeded natively; what Node has drawn from it in advance (UUIDs, randomInt), which is drawn anew;
// and V8's Math.random, which nothing can reseed, so that a worker that will be frozen gets another
// one before any code of the function can keep a reference to it.

const { readdirSync, readlinkSync } = require('node:fs');
const path = require('node:path');

// Kept before user code can patch them, as tools for tests with a false clock do.
const after = setTimeout;
const stop = clearTimeout;
const { now } = Date;

const UUIDS_AHEAD = 128;
const UUID_BYTES = 16;
const INTS_AHEAD = 1024;
// Until V8 has gathered what it wants to know of code; with many more it would optimise what runs once.
const WARM_ROUNDS = 6;
const ENTROPY_BYTES = 64;
// Node keeps the text of the Date header for up to a second.
const DATE_CACHE_MS = 1000;
// A whole collection writes to some 2 MB of what a clone of the runtime shares.
const LARGE_HEAP_BYTES = 32 << 20;
// Of Math.random.
const seed = new Uint32Array(4);

const before = [];
const afterwards = [];
let born = {};
let reseed = null;
let uuidsAhead = null;
let intsAhead = null;
let drawnAhead = []; // all of them that there are, and the seed
let connections = null;
// node:crypto's, from prepare() on: a worker that is never frozen does not pay for loading it.
let randomBytes;
let randomInt;
let randomUUID;

function installGlobals(target) {
	target.beforeSnapshot = (hook) => register(before, 'beforeSnapshot', hook);
	target.afterRestore = (hook) => register(afterwards, 'afterRestore', hook);
}

function register(list, name, hook) {
	if (typeof hook !== 'function') throw new TypeError(`${name} wants a function, not ${typeof hook}`);
	list.push(hook);
}

// Before any code of the function is loaded, in a worker that will be frozen.
function prepare() {
	const crypto = require('node:crypto');
	({ randomBytes, randomInt, randomUUID } = crypto);
	crypto.randomFillSync(seed);
	const random = { random: nextRandom }.random;
	Object.defineProperty(random, 'name', { value: 'random', configurable: true });
	Object.defineProperty(Math, 'random', { value: random, writable: true, configurable: true });
}

// What the process was born with, to tell the host's variables from those that code has set.
function rememberEnvironment() {
	born = { ...process.env };
}

// xoshiro128** (Blackman and Vigna); 53 bits of two outputs.
function nextRandom() {
	return ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
}

function next() {
	const product = Math.imul(seed[1], 5);
	const result = Math.imul((product << 7) | (product >>> 25), 9);
	const shifted = seed[1] << 9;
	seed[2] ^= seed[0];
	seed[3] ^= seed[1];
	seed[1] ^= seed[2];
	seed[0] ^= seed[3];
	seed[2] ^= shifted;
	seed[3] = (seed[3] << 11) | (seed[3] >>> 21);
	return result >>> 0;
}

// The hooks that a handler's module exports by name run before those that were registered.
function adopt(exported) {
	for (const [list, name] of [[before, 'beforeSnapshot'], [afterwards, 'afterRestore']]) {
		const hook = exported?.[name] ?? exported?.default?.[name];
		if (typeof hook === 'function') list.unshift(hook);
	}
}

// Resolves when the process may be frozen. What a clone does first finds its code compiled: compiling
// would write to many pages of memory that clones share until then, and each costs a fault. So it
// is rehearsed: @rehearse does with what a RESTORED might tell all that one brings about but for
// what others would see. A clone of the runtime shares its memory with others as long as it is
// not written to: only what is young is collected in it, unless there is much else. @bare: there is no function.
async function rest(limitMs, serves, cloned, bare, rehearse) {
	await within(limitMs, 'beforeSnapshot', [...before].reverse());
	closeIdle();
	reseed ??= require(path.join(__dirname, 'reseed.node'));
	uuidsAhead ??= findUuidsAhead();
	intsAhead ??= findIntsAhead();
	drawnAhead = [seed, uuidsAhead, intsAhead].filter((buffer) => buffer !== null);
	for (let i = 0; i < WARM_ROUNDS; i++) await rehearse(invent(bare));
	if (serves) await new Promise((resolve) => after(resolve, DATE_CACHE_MS));
	collect(cloned);
	await rehearse(invent(bare));
	parkConnections();
}

// What a RESTORED might tell. The host tells the environment only where it isn't what it was at the freeze.
function invent(bare) {
	const entropy = randomBytes(ENTROPY_BYTES).toString('hex');
	return bare ? { entropy, env: born } : { entropy };
}

// Resolves when requests may come. A rehearsal runs no hooks.
async function wake(told, rehearsing) {
	become(told);
	if (!rehearsing) connections?.announce();
	await within(told.hookTimeoutMs, 'afterRestore', rehearsing ? [] : afterwards);
}

// One of its own, as far as the runtime goes.
function become(told) {
	reseed(Buffer.from(told.entropy, 'hex'), ...drawnAhead);
	drawAnew();
	if (told.env !== undefined) setEnvironment(told.env);
	setTimeOrigin();
}

async function within(limitMs, name, hooks) {
	if (hooks.length === 0) return;
	let timer;
	const late = new Promise((_, reject) => {
		timer = after(() => {
			const error = new Error(`the ${name} hooks were not done within ${limitMs} ms`);
			error.name = 'Runtime.HookTimeout';
			reject(error);
		}, limitMs);
	});
	try {
		await Promise.race([runAll(hooks), late]);
	} finally {
		stop(timer);
	}
}

async function runAll(hooks) {
	for (const hook of hooks) await hook();
}

// Connections kept for later requests don't outlive a restore.
function closeIdle() {
	for (const { globalAgent } of [require('node:http'), require('node:https')]) {
		for (const sockets of Object.values(globalAgent.freeSockets)) {
			for (const socket of [...sockets]) socket.destroy();
		}
	}
}

// The last thing before the freeze: nothing of the function runs from here on. Only a worker that has
// sockets besides its channel pays for the module.
function parkConnections() {
	const sockets = readdirSync('/proc/self/fd').filter((fd) => {
		try {
			return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
		} catch {
			return false; // the directory's own
		}
	});
	if (sockets.length < 2) return;
	connections ??= require(path.join(__dirname, 'connections.node'));
	connections.park();
}

// randomUUID() and randomInt() draw from buffers of Node's own, which they handle by what all buffers
// share: whoever stands in for that during one call sees them. A clone has them filled anew at once;
// drawing until they are used up would have V8 compile what draws.
function findUuidsAhead() {
	const shared = Object.getPrototypeOf(Uint8Array.prototype);
	const property = Object.getOwnPropertyDescriptor(shared, 'byteLength');
	let found = null;
	Object.defineProperty(shared, 'byteLength', {
		...property,
		get() {
			const length = property.get.call(this);
			if (length === UUIDS_AHEAD * UUID_BYTES) found = this;
			return length;
		},
	});
	try {
		// It is filled when its last one has been used.
		for (let i = 0; i < UUIDS_AHEAD && found === null; i++) randomUUID();
	} finally {
		Object.defineProperty(shared, 'byteLength', property);
	}
	return found;
}

function findIntsAhead() {
	const { readUIntBE } = Buffer.prototype;
	let found = null;
	Buffer.prototype.readUIntBE = function (...args) {
		if (this.length === INTS_AHEAD * 6) found = this;
		return readUIntBE.apply(this, args);
	};
	try {
		randomInt(2);
	} finally {
		Buffer.prototype.readUIntBE = readUIntBE;
	}
	return found;
}

// What could not be found has to be used up.
function drawAnew() {
	for (let i = 0; uuidsAhead === null && i < UUIDS_AHEAD; i++) randomUUID();
	for (let i = 0; intsAhead === null && i < INTS_AHEAD; i++) randomInt(2);
}

function setEnvironment(env) {
	for (const [name, value] of Object.entries(born)) {
		if (!Object.hasOwn(env, name) && process.env[name] === value) delete process.env[name];
	}
	for (const [name, value] of Object.entries(env)) {
		if (born[name] !== value) process.env[name] = value;
	}
	born = { ...env };
}

// The monotonic clock may have stood still while the process lay on disk.
function setTimeOrigin() {
	Object.defineProperty(performance, 'timeOrigin', {
		value: now() - performance.now(),
		configurable: true,
		enumerable: true,
	});
}

function collect(cloned) {
	const v8 = require('node:v8');
	const whole = !cloned || v8.getHeapStatistics().total_heap_size > LARGE_HEAP_BYTES;

	v8.setFlagsFromString('--expose-gc');
	const gc = require('node:vm').runInNewContext('gc');
	v8.setFlagsFromString('--no-expose-gc');
	// Node 20 takes any object for a wish for a minor collection, { type: 'major' } too.
	if (whole) gc();
	else gc({ type: 'minor' });
	// The sweep that follows, the function's own collections' too, would be done bit by bit as memory is asked
	// for, by each clone again, in every page of the heap. These figures want a heap that can be walked, so that
	// it is done first.
	v8.getHeapCodeStatistics();
}

// Whether prepare() was called: only such a worker may be frozen.
function isPrepared() {
	return randomUUID !== undefined;
}

module.exports = {
	installGlobals, prepare, isPrepared, rememberEnvironment, adopt, rest, become, wake,
};
