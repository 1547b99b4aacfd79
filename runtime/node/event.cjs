// SPDX-License-Identifier: Apache-2.0
'use strict';

// Handlers of (event, context): what they are given, and how what they return is answered.

const { Writable } = require('node:stream');
const { RuntimeError } = require('./errors.cjs');
const { add } = require('./fields.cjs');
const { Context } = require('./context.cjs');
const { MARK_STREAMING } = require('./handler.cjs');
const { KIND_HTTP, NO_FIELDS } = require('./stream.cjs');
const log = require('./log.cjs');
const snapshot = require('./snapshot.cjs');

const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';
const PRELUDE_END = Buffer.alloc(8);

let handler = null;
let streaming = false;
let bridge = null;

function configure(loaded) {
	handler = loaded;
	streaming = loaded[MARK_STREAMING] !== undefined;
}

// One run of the handler. The first to settle it answers the request.
class Call {
	constructor(stream) {
		this.stream = stream;
		this.settled = false;
		this.output = null;
	}

	settle(error, value) {
		if (this.settled) return;
		this.settled = true;
		if (error !== null && error !== undefined) this.fail(error);
		else this.answer(value);
	}

	fail(error) {
		this.stream.fail(error);
		if (this.output !== null) this.output.destroy();
	}

	answer(value) {
		const stream = this.stream;
		try {
			if (stream.kind === KIND_HTTP) {
				bridge.respond(stream, value);
			} else if (isStreamable(value)) {
				pump(stream, value, 0, ['content-type', 'application/octet-stream']);
			} else {
				stream.respondText(0, NO_FIELDS, toJson(value));
			}
		} catch (error) {
			stream.fail(error);
		}
	}
}

function toJson(value) {
	if (value === undefined) return 'null';
	try {
		return JSON.stringify(value) ?? 'null';
	} catch (error) {
		throw new RuntimeError('Runtime.MarshalError', `the handler's result is not JSON: ${error.message}`);
	}
}

// @value is to be streamed: an async iterable (a Readable among them) or a running generator.
function isStreamable(value) {
	if (value === null || typeof value !== 'object') return false;
	return typeof value[Symbol.asyncIterator] === 'function' ||
		(typeof value[Symbol.iterator] === 'function' && typeof value.next === 'function');
}

function toChunk(value) {
	if (typeof value === 'string') return Buffer.from(value);
	if (value instanceof Uint8Array) return value;
	throw new RuntimeError('Runtime.MarshalError',
		`a streamed chunk must be a string or a Uint8Array, not ${value === null ? 'null' : typeof value}`);
}

// Streams @source as the response.
async function pump(stream, source, status, fields) {
	try {
		for await (const value of source) {
			if (stream.closed || stream.cancelled) break;
			const chunk = toChunk(value);
			const more = stream.headSent ? stream.write(chunk) : stream.respond(status, fields, chunk);
			if (!more) await new Promise((resolve) => (stream.ondrain = resolve));
		}
		if (!stream.headSent) stream.respond(status, fields);
		stream.finish();
	} catch (error) {
		stream.fail(error);
	}
}

// What a streaming handler writes to.
class ResponseStream extends Writable {
	#stream;
	#status;
	#fields = NO_FIELDS;
	#prelude = null;
	#waiting = null;

	constructor(stream) {
		super({ highWaterMark: 65536 });
		this.#stream = stream;
		this.#status = stream.kind === KIND_HTTP ? 200 : 0;
		this.#fields = ['content-type', 'application/octet-stream'];
		stream.ondrain = () => {
			const done = this.#waiting;
			this.#waiting = null;
			if (done !== null) done();
		};
	}

	setContentType(type) {
		const fields = [];
		add(fields, 'content-type', type);
		this.#fields = fields;
	}

	// Status, headers and cookies of the response: {statusCode, headers, cookies}.
	setMetadata(metadata) {
		if (this.#stream.kind === KIND_HTTP) {
			const head = bridge.head(metadata);
			this.#status = head.status;
			this.#fields = head.fields;
		} else {
			this.#fields = ['content-type', PRELUDE_TYPE];
			this.#prelude = Buffer.concat([Buffer.from(JSON.stringify(metadata)), PRELUDE_END]);
		}
	}

	#begin(chunk) {
		const stream = this.#stream;
		if (this.#prelude === null) return stream.respond(this.#status, this.#fields, chunk);
		stream.respond(this.#status, this.#fields, this.#prelude);
		return chunk === undefined || stream.write(chunk);
	}

	_write(chunk, encoding, callback) {
		const more = this.#stream.headSent ? this.#stream.write(chunk) : this.#begin(chunk);
		if (more) callback();
		else this.#waiting = callback;
	}

	_final(callback) {
		if (!this.#stream.headSent) this.#begin(undefined);
		this.#stream.finish();
		callback();
	}

	_destroy(error, callback) {
		// Ended before its end: the caller must not take it for the whole.
		if (!this.writableFinished) {
			this.#stream.fail(error ?? new RuntimeError('Runtime.StreamDestroyed',
				'the handler destroyed its response stream'));
		}
		callback(null);
	}
}

// @buffer from @start to @end is the whole body.
function begin(stream, buffer, start, end) {
	const call = new Call(stream);
	const context = new Context(stream, call);
	stream.context = context;
	let event;
	try {
		event = stream.kind === KIND_HTTP ? toHttpEvent(stream, buffer, start, end)
			: start === end ? null : JSON.parse(buffer.utf8Slice(start, end));
	} catch (error) {
		stream.fail(new RuntimeError('Runtime.UnmarshalError', `the event is not JSON: ${error.message}`));
		return;
	}
	log.enter(stream, streaming ? runStreaming : run, call, event, context);
}

function toHttpEvent(stream, buffer, start, end) {
	bridge ??= require('./bridge.cjs');
	return bridge.toEvent(stream, buffer, start, end);
}

function run(call, event, context) {
	let result;
	try {
		result = handler(event, context, (error, value) => call.settle(error, value));
	} catch (error) {
		call.settle(error ?? new Error(`the handler threw ${error}`));
		return;
	}
	if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
		settleLater(call, result);
	} else if (handler.length < 3) {
		call.settle(null, result);
	}
	// One that takes a callback answers through it, whatever it returns.
}

async function settleLater(call, result) {
	try {
		call.settle(null, await result);
	} catch (error) {
		call.settle(error ?? new Error(`the handler threw ${error}`));
	}
}

async function runStreaming(call, event, context) {
	const output = new ResponseStream(call.stream);
	call.output = output;
	output.on('error', () => {});
	try {
		// The end of the stream answers the request, and may come after the handler's.
		await handler(event, output, context);
		if (call.stream.cancelled) call.stream.finish();
	} catch (error) {
		call.settle(error ?? new Error(`the handler threw ${error}`));
	}
}

// The body of @stream comes in pieces: gathers it, then begins.
function gather(stream, first) {
	const chunks = [first];
	let bytes = first.length;
	stream.consumed(first.length);
	stream.consumer = {
		data(chunk) {
			chunks.push(chunk);
			bytes += chunk.length;
			stream.consumed(chunk.length);
		},
		end() {
			stream.oncancel = null;
			const whole = Buffer.concat(chunks, bytes);
			chunks.length = 0;
			begin(stream, whole, 0, bytes);
		},
	};
	// The handler never began, so nothing holds the stream.
	stream.oncancel = () => stream.finish();
}

// The globals that AWS's Node runtime gives to streaming handlers.
function installGlobals() {
	globalThis.awslambda = {
		streamifyResponse(streamHandler) {
			streamHandler[MARK_STREAMING] = 'response';
			return streamHandler;
		},
		HttpResponseStream: {
			from(output, metadata) {
				output.setMetadata(metadata);
				return output;
			},
		},
	};
	globalThis.nestlet = { streamifyResponse: globalThis.awslambda.streamifyResponse };
	snapshot.installGlobals(globalThis.nestlet);
}

module.exports = { configure, begin, gather, installGlobals, pump, isStreamable, toJson };
