// SPDX-License-Identifier: Apache-2.0
'use strict';

// One request's stream: its head, what arrives of its body, and the response with its credit.
//
//   open --finish()/fail()--> closed      (FIN or ERROR is queued: the slot is free)
//
// A closed stream is forgotten: frames of it that crossed on the way are ignored.

const { RESPONSE, BODY, ERROR, FIN, HEADER_BYTES, MAX_BODY } = require('./channel.cjs');
const { describe } = require('./errors.cjs');
const { sizeOf } = require('./fields.cjs');

const INITIAL_CREDIT = 262144;
// Consumed bytes are given back in lots of this size, well below the window.
const CREDIT_LOT = 65536;
const KIND_EVENT = 1;
const KIND_HTTP = 2;
const HEAD_BYTES = 8;
const FIELD_BYTES = 8;
const TAG_HEADER = 6;
// Shared: never to be changed.
const NO_FIELDS = Object.freeze([]);
const CANCELLED = {
	errorType: 'Function.Cancelled',
	errorMessage: 'the request was cancelled',
	stackTrace: [],
};

class Stream {
	// @onclosing(stream) runs before the frame that ends the stream is queued, @onclosed(stream)
	// after.
	constructor(channel, id, onclosing, onclosed) {
		this.channel = channel;
		this.id = id;
		this.onclosing = onclosing;
		this.onclosed = onclosed;
		this.kind = 0;
		this.deadlineMs = 0;
		this.requestId = '';
		this.traceparent = undefined;
		this.clientContext = undefined;
		this.method = '';
		this.target = '';
		// Names and values in turn, as http's rawHeaders.
		this.headers = NO_FIELDS;

		this.closed = false;
		this.cancelled = false;
		this.headSent = false;
		this.finishing = false;
		this.credit = INITIAL_CREDIT;
		this.pending = null;
		this.pendingBytes = 0;
		this.lastFrame = 0;
		this.lastEnd = 0;
		this.lastGeneration = -1;

		// The consumer of the body: data(chunk), end(). Set by the interface.
		this.consumer = null;
		this.ungranted = 0;
		this.oncancel = null;
		this.ondrain = null;
		this.context = null;
		this.tails = null;
	}

	// Takes the request head from @buffer. Returns where the body begins, or -1 when the head is
	// malformed.
	parse(buffer, start, end) {
		if (end - start < 16) return -1;
		this.kind = buffer[start];
		const fields = buffer[start + 2] | (buffer[start + 3] << 8);
		const body = start + 16 + buffer.readUInt32LE(start + 4);
		this.deadlineMs = buffer.readUInt32LE(start + 8) + buffer.readUInt32LE(start + 12) * 4294967296;
		if (body > end) return -1;
		let at = start + 16;
		for (let i = 0; i < fields; i++) {
			if (body - at < FIELD_BYTES) return -1;
			const tag = buffer[at] | (buffer[at + 1] << 8);
			const value = at + FIELD_BYTES + (buffer[at + 2] | (buffer[at + 3] << 8));
			const next = value + buffer.readUInt32LE(at + 4);
			if (next > body) return -1;
			this.field(tag, buffer, at + FIELD_BYTES, value, next);
			at = next;
		}
		if (at !== body || this.requestId === '') return -1;
		if (this.kind === KIND_HTTP ? this.method === '' || this.target === '' : this.kind !== KIND_EVENT) {
			return -1;
		}
		return body;
	}

	field(tag, buffer, name, value, end) {
		switch (tag) {
		case 1:
			this.requestId = buffer.latin1Slice(value, end);
			break;
		case 2:
			this.traceparent = buffer.latin1Slice(value, end);
			break;
		case 3:
			this.clientContext = buffer.latin1Slice(value, end);
			break;
		case 4:
			this.method = buffer.latin1Slice(value, end);
			break;
		case 5:
			this.target = buffer.latin1Slice(value, end);
			break;
		case TAG_HEADER:
			if (this.headers === NO_FIELDS) this.headers = [];
			this.headers.push(buffer.latin1Slice(name, value), buffer.latin1Slice(value, end));
			break;
		default:
			// A field of a later host: its request is as good without it.
			break;
		}
	}

	// The consumer is done with @bytes of the body.
	consumed(bytes) {
		this.ungranted += bytes;
		if (this.ungranted < CREDIT_LOT || this.closed || this.cancelled) return;
		this.channel.credit(this.id, this.ungranted);
		this.ungranted = 0;
	}

	// An event's whole answer, @text, in one frame when it fits.
	respondText(status, fields, text) {
		const size = HEAD_BYTES + sizeOf(fields);
		if (this.closed || this.cancelled || text.length * 3 > MAX_BODY) {
			this.respond(status, fields, Buffer.from(text));
			this.finish();
			return;
		}
		this.onclosing(this);
		const channel = this.channel;
		const at = channel.reserve(HEADER_BYTES + size + text.length * 3);
		const body = writeHead(channel.out, at + HEADER_BYTES, status, fields);
		const end = body + channel.out.utf8Write(text, body);
		channel.header(at, end - at - HEADER_BYTES, RESPONSE, FIN, this.id);
		channel.pos = end;
		this.headSent = true;
		this.close();
	}

	// Sends the response head, and @chunk as far as one frame and the credit go. Returns as
	// write() does.
	respond(status, fields, chunk) {
		if (this.closed || this.cancelled) return true;
		const channel = this.channel;
		const size = HEAD_BYTES + sizeOf(fields);
		const take = chunk === undefined ? 0 : Math.min(chunk.length, MAX_BODY, this.credit);
		const at = channel.reserve(HEADER_BYTES + size + take);
		const body = writeHead(channel.out, at + HEADER_BYTES, status, fields);
		if (take > 0) channel.out.set(take === chunk.length ? chunk : chunk.subarray(0, take), body);
		channel.header(at, size + take, RESPONSE, 0, this.id);
		channel.pos = body + take;
		this.lastFrame = at;
		this.lastEnd = channel.pos;
		this.lastGeneration = channel.generation;
		this.headSent = true;
		this.credit -= take;
		return chunk === undefined || take === chunk.length || this.write(chunk.subarray(take));
	}

	// Sends body bytes (a Uint8Array, copied or kept until sent). Returns false when the writer
	// should wait for ondrain.
	write(chunk) {
		if (this.closed || this.cancelled || chunk.length === 0) return true;
		if (this.pending !== null) {
			this.pending.push(chunk);
			this.pendingBytes += chunk.length;
			return false;
		}
		const sent = this.send(chunk);
		if (sent === chunk.length) return true;
		this.pending = [chunk.subarray(sent)];
		this.pendingBytes = chunk.length - sent;
		return false;
	}

	send(chunk) {
		const channel = this.channel;
		const total = Math.min(chunk.length, this.credit);
		let sent = 0;
		while (sent < total) {
			const take = Math.min(total - sent, MAX_BODY);
			const at = channel.reserve(HEADER_BYTES + take);
			channel.header(at, take, BODY, 0, this.id);
			channel.out.set(chunk.subarray(sent, sent + take), at + HEADER_BYTES);
			channel.pos = at + HEADER_BYTES + take;
			this.lastFrame = at;
			this.lastEnd = channel.pos;
			this.lastGeneration = channel.generation;
			sent += take;
		}
		this.credit -= sent;
		return sent;
	}

	addCredit(bytes) {
		this.credit += bytes;
		while (this.pending !== null) {
			const chunk = this.pending[0];
			const sent = this.send(chunk);
			this.pendingBytes -= sent;
			if (sent < chunk.length) {
				this.pending[0] = chunk.subarray(sent);
				return;
			}
			this.pending.shift();
			if (this.pending.length === 0) this.pending = null;
		}
		if (this.finishing) this.finish();
		if (this.ondrain !== null) this.ondrain();
	}

	// Ends the response, once all that was written could be sent.
	finish() {
		if (this.closed) return;
		if (this.cancelled) {
			this.fail(CANCELLED);
			return;
		}
		if (this.pending !== null) {
			this.finishing = true;
			return;
		}
		this.onclosing(this);
		const { channel } = this;
		if (this.lastGeneration === channel.generation && this.lastEnd === channel.pos) {
			// The last frame is still here, and nothing was queued behind it.
			channel.out[this.lastFrame + 5] |= FIN;
		} else {
			channel.frame(BODY, FIN, this.id);
		}
		this.close();
	}

	// Ends the stream with @error: anything that was thrown, or a ready description of it.
	fail(error) {
		if (this.closed) return;
		this.onclosing(this);
		this.channel.json(ERROR, this.id, describe(error));
		this.close();
	}

	// The caller has gone: what is written from here on is dropped, as no credit will come any
	// more, and the end of the response becomes an ERROR.
	cancel() {
		if (this.cancelled || this.closed) return;
		this.cancelled = true;
		this.pending = null;
		if (this.context !== null) this.context.abort();
		if (this.oncancel !== null) this.oncancel();
		if (this.finishing) this.finish();
		else if (this.ondrain !== null) this.ondrain();
	}

	close() {
		this.closed = true;
		this.pending = null;
		this.pendingBytes = 0;
		this.onclosed(this);
	}
}

// Header values are latin1: one byte a character, as in HTTP.
function writeHead(out, at, status, fields) {
	out[at] = status;
	out[at + 1] = status >>> 8;
	out[at + 2] = fields.length >>> 1;
	out[at + 3] = fields.length >>> 9;
	let pos = at + HEAD_BYTES;
	for (let i = 0; i < fields.length; i += 2) {
		const name = fields[i];
		const value = fields[i + 1];
		out[pos] = TAG_HEADER;
		out[pos + 1] = 0;
		out[pos + 2] = name.length;
		out[pos + 3] = name.length >>> 8;
		out.writeUInt32LE(value.length, pos + 4);
		pos += FIELD_BYTES;
		pos += out.latin1Write(name, pos);
		pos += out.latin1Write(value, pos);
	}
	out.writeUInt32LE(pos - at - HEAD_BYTES, at + 4);
	return pos;
}

module.exports = { Stream, KIND_EVENT, KIND_HTTP, NO_FIELDS };
