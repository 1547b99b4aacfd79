// SPDX-License-Identifier: Apache-2.0
'use strict';

// What user code prints becomes LOG frames, marked with the request that printed it.
//
// A worker with one request at a time knows whose turn it is. With more, AsyncLocalStorage follows
// each request through its awaits (about 0.4 us a request in Node 20).
//
// Lines are whole: what comes without a line feed waits for the rest of its line, or for the end
// of its request.

const { AsyncLocalStorage } = require('node:async_hooks');
const { Writable } = require('node:stream');
const { LOG, HEADER_BYTES, MAX_BODY } = require('./channel.cjs');

const STDOUT = 1;
const STDERR = 2;
const LOG_HEAD_BYTES = 4;
const MAX_TEXT = MAX_BODY - LOG_HEAD_BYTES;
const LEVELS = { trace: 1, debug: 2, log: 3, info: 3, warn: 4, error: 5 };

let channel = null;
let storage = null;
let current = null;
let level = 0;
let lost = 0;
const outside = ['', ''];

// Runs fn(a, b, c) as @stream's. @stream's logs carry its number until it is closed.
function enter(stream, fn, a, b, c) {
	if (storage !== null) {
		storage.run(stream, fn, a, b, c);
	} else {
		current = stream;
		fn(a, b, c);
	}
}

// @stream is about to be closed: its last unfinished lines go out.
function leave(stream) {
	if (stream.tails !== null) flushTails(stream.id, stream.tails);
	if (current === stream) current = null;
}

function flushTails(id, tails) {
	for (let i = 0; i < 2; i++) {
		if (tails[i] === '') continue;
		emit(id, i + 1, 0, tails[i]);
		tails[i] = '';
	}
}

function write(source, text) {
	const stream = storage !== null ? storage.getStore() : current;
	const open = stream !== undefined && stream !== null && !stream.closed;
	const id = open ? stream.id : 0;
	const tails = open ? (stream.tails ??= ['', '']) : outside;
	const last = text.lastIndexOf('\n');
	if (last === -1) {
		tails[source - 1] += text;
		if (tails[source - 1].length < MAX_TEXT) return;
		text = tails[source - 1];
		tails[source - 1] = '';
	} else {
		const rest = text.slice(last + 1);
		text = tails[source - 1] + text.slice(0, last);
		tails[source - 1] = rest;
	}
	emit(id, source, level, text);
}

function emit(id, source, at, text) {
	if (!channel.admitLog()) {
		lost += countLines(text);
		return;
	}
	if (lost > 0) {
		const told = `${lost} log lines lost: they came faster than the host could take them`;
		lost = 0;
		frame(0, STDERR, LEVELS.warn, told);
	}
	if (text.length * 3 <= MAX_TEXT) {
		frame(id, source, at, text);
		return;
	}
	const bytes = Buffer.from(text);
	for (let start = 0; start < bytes.length;) {
		const end = cut(bytes, start);
		frame(id, source, at, bytes.subarray(start, end));
		start = end;
		if (bytes[start] === 10) start++;
	}
}

// Where a frame that begins at @start ends: after a whole line if there is one, never inside a
// character.
function cut(bytes, start) {
	let end = start + MAX_TEXT;
	if (end >= bytes.length) return bytes.length;
	const line = bytes.lastIndexOf(10, end);
	if (line > start) return line;
	while ((bytes[end] & 0xc0) === 0x80) end--;
	return end;
}

function frame(id, source, at, text) {
	const isText = typeof text === 'string';
	const room = isText ? text.length * 3 : text.length;
	const pos = channel.reserve(HEADER_BYTES + LOG_HEAD_BYTES + room);
	const out = channel.out;
	let end = pos + HEADER_BYTES;
	out[end++] = source;
	out[end++] = at;
	out[end++] = 0;
	out[end++] = 0;
	if (isText) {
		end += out.utf8Write(text, end);
	} else {
		out.set(text, end);
		end += text.length;
	}
	channel.header(pos, end - pos - HEADER_BYTES, LOG, 0, id);
	channel.pos = end;
}

function countLines(text) {
	let lines = 1;
	for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lines++;
	return lines;
}

// process.stdout and process.stderr. Writes are done when they return, as they are for files, so
// that nothing printed before a crash is lost.
class LogStream extends Writable {
	constructor(source) {
		super({ decodeStrings: false });
		this.fd = source;
		this._type = 'pipe';
	}

	write(chunk, encoding, callback) {
		if (typeof encoding === 'function') {
			callback = encoding;
			encoding = undefined;
		}
		if (typeof chunk === 'string') {
			write(this.fd, encoding === undefined || encoding === 'utf8' || encoding === 'utf-8'
				? chunk : Buffer.from(chunk, encoding).toString());
		} else if (chunk instanceof Uint8Array) {
			write(this.fd, Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString());
		} else {
			const error = new TypeError('The "chunk" argument must be a string or a Uint8Array');
			error.code = 'ERR_INVALID_ARG_TYPE';
			throw error;
		}
		if (typeof callback === 'function') process.nextTick(callback);
		return true;
	}

	// The process's own: it ends with the process only.
	end(chunk, encoding, callback) {
		if (chunk !== undefined && typeof chunk !== 'function') this.write(chunk, encoding);
		const done = [chunk, encoding, callback].find((x) => typeof x === 'function');
		if (done !== undefined) process.nextTick(done);
		return this;
	}

	destroy() {
		return this;
	}
}

// Takes over process.stdout, process.stderr and the console.
function install(to) {
	channel = to;
	for (const [name, source] of [['stdout', STDOUT], ['stderr', STDERR]]) {
		let stream = null;
		Object.defineProperty(process, name, {
			configurable: true,
			enumerable: true,
			get: () => (stream ??= new LogStream(source)),
		});
	}
	for (const [name, value] of Object.entries(LEVELS)) wrapConsole(name, value);
}

// Gives what console[@name] prints its level.
function wrapConsole(name, value) {
	const original = console[name];
	console[name] = function (...args) {
		const before = level;
		level = value;
		try {
			original.apply(this, args);
		} finally {
			level = before;
		}
	};
}

// @many: more than one request may be open at once.
function track(many) {
	if (many) storage = new AsyncLocalStorage();
}

// A line of the runtime's own.
function error(id, text) {
	emit(id, STDERR, LEVELS.error, text);
}

function finish() {
	flushTails(0, outside);
}

module.exports = { install, track, enter, leave, error, finish };
