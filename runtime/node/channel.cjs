// SPDX-License-Identifier: Apache-2.0
'use strict';

// The channel: frames in, frames out (docs/worker-protocol.md).
//
// In: one reused buffer takes what the socket has; every whole frame in it is handed on where it
// lies, as (buffer, start, end), and is valid only during that call.
// Out: frames are written into one buffer, and what was produced together leaves in one write(2):
// as soon as the running callback and its promises are done, or, when the last write was in the
// same millisecond, at the end of the turn of the event loop. So a lone answer goes out at once,
// and many share a write.
// write(2) is called directly: it costs a fraction of a stream's write, keeps the order with
// what a log flood writes synchronously, and works while the process is going down. Only when the
// socket is full does the rest wait, for a retry a millisecond later: no event tells of
// writability without giving the bytes to the event loop, after which nothing could be written
// synchronously any more.

const { Socket } = require('node:net');
const fs = require('node:fs');

// Kept before user code can patch them, as tools for tests with a false clock do.
const { writeSync } = fs;
const { nextTick } = process;
const { now } = Date;
const atTurnEnd = setImmediate;
const after = setTimeout;

const HELLO = 1;
const INIT = 2;
const READY = 3;
const REQUEST = 4;
const RESPONSE = 5;
const BODY = 6;
const ERROR = 7;
const CREDIT = 8;
const CANCEL = 9;
const LOG = 10;
const PING = 11;
const PONG = 12;
const DRAIN = 13;
const CHECKPOINT = 14;
const RESTORED = 15;
const FIN = 1;

const HEADER_BYTES = 12;
const MAX_PAYLOAD = 1 << 20;
const MAX_BODY = 65536;
const READ_BUFFER_BYTES = 256 * 1024;
const WRITE_BUFFER_BYTES = 256 * 1024;
// A log writer that has this much waiting is slowed down to the host's speed.
const MAX_QUEUED_BYTES = 4 << 20;
// ... and loses lines when the host took nothing for so long.
const STALL_LIMIT_MS = 2000;
const RETRY_MS = 1;

const sleepCell = new Int32Array(new SharedArrayBuffer(4));

class Channel {
	constructor(fd) {
		this.fd = fd;
		this.frames = new Array(16).fill(null);
		this.onclose = null;
		this.input = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
		this.filled = 0;
		this.out = Buffer.allocUnsafeSlow(WRITE_BUFFER_BYTES);
		this.pos = 0;
		this.sent = 0;
		// Counts the flushes: a frame of an older generation may have left already.
		this.generation = 0;
		this.overflow = [];
		this.overflowBytes = 0;
		this.scheduled = false;
		this.retry = null;
		this.stalled = false;
		this.closed = false;
		this.socket = null;
		this.deferred = false;
		this.flushedMs = 0;
		this.flushTick = () => {
			this.scheduled = false;
			if (this.queued() === 0) return;
			const time = now();
			if (time !== this.flushedMs) {
				this.flushedMs = time;
				this.flush();
			} else if (!this.deferred) {
				this.deferred = true;
				atTurnEnd(this.flushTurn);
			}
		};
		this.flushTurn = () => {
			this.deferred = false;
			this.flush();
		};
	}

	// @frames: by frame type, a function (flags, stream, buffer, start, end); a type without
	// one is not for a worker. @onclose(reason) runs once, when the channel can't go on.
	start(frames, onclose) {
		this.frames = frames;
		this.onclose = onclose;
		this.socket = new Socket({
			fd: this.fd,
			readable: true,
			writable: false,
			onread: {
				buffer: () => (this.filled === 0 ? this.input : this.input.subarray(this.filled)),
				callback: (nread) => {
					this.receive(nread);
					return true;
				},
			},
		});
		const gone = () => this.fail('the host closed the channel');
		this.socket.on('end', gone);
		this.socket.on('close', gone);
		this.socket.on('error', gone);
		// Asks for the end of the stream, which would not be noticed otherwise.
		this.socket.resume();
	}

	fail(reason) {
		if (this.closed) return;
		this.closed = true;
		this.onclose(reason);
	}

	receive(nread) {
		const buffer = this.input;
		const end = this.filled + nread;
		let pos = 0;
		let need = 0;
		while (end - pos >= HEADER_BYTES) {
			const length = buffer[pos] + (buffer[pos + 1] << 8) + (buffer[pos + 2] << 16) +
				buffer[pos + 3] * 0x1000000;
			if (length > MAX_PAYLOAD) {
				this.fail(`a frame of ${length} bytes came`);
				return;
			}
			const start = pos + HEADER_BYTES;
			if (end - start < length) {
				need = HEADER_BYTES + length;
				break;
			}
			const type = buffer[pos + 4];
			const flags = buffer[pos + 5];
			const stream = (buffer[pos + 8] | (buffer[pos + 9] << 8) | (buffer[pos + 10] << 16) |
				(buffer[pos + 11] << 24)) >>> 0;
			const take = this.frames[type];
			if (take === undefined || take === null || (flags & ~FIN) !== 0 ||
			    buffer[pos + 6] !== 0 || buffer[pos + 7] !== 0) {
				this.fail(`a frame that a worker can't accept came: type ${type}, flags ${flags}`);
				return;
			}
			take(flags, stream, buffer, start, start + length);
			if (this.closed) return;
			pos = start + length;
		}
		this.filled = end - pos;
		if (need > buffer.length) {
			this.input = Buffer.allocUnsafeSlow(MAX_PAYLOAD + HEADER_BYTES);
			buffer.copy(this.input, 0, pos, end);
		} else if (pos > 0 && this.filled > 0) {
			buffer.copyWithin(0, pos, end);
		}
	}

	// Makes room for @bytes in one piece and returns where it begins in this.out. The caller
	// fills it, and sets this.pos to its end.
	reserve(bytes) {
		if (this.out.length - this.pos < bytes) this.makeRoom(bytes);
		if (!this.scheduled) {
			this.scheduled = true;
			nextTick(this.flushTick);
		}
		return this.pos;
	}

	makeRoom(bytes) {
		this.flush();
		if (this.out.length - this.pos >= bytes) return;
		if (this.pos > this.sent) {
			this.overflow.push(this.out.subarray(this.sent, this.pos));
			this.overflowBytes += this.pos - this.sent;
		}
		this.out = Buffer.allocUnsafeSlow(Math.max(bytes, WRITE_BUFFER_BYTES));
		this.pos = 0;
		this.sent = 0;
		this.generation++;
	}

	header(at, length, type, flags, stream) {
		const out = this.out;
		out[at] = length;
		out[at + 1] = length >>> 8;
		out[at + 2] = length >>> 16;
		out[at + 3] = 0;
		out[at + 4] = type;
		out[at + 5] = flags;
		out[at + 6] = 0;
		out[at + 7] = 0;
		out[at + 8] = stream;
		out[at + 9] = stream >>> 8;
		out[at + 10] = stream >>> 16;
		out[at + 11] = stream >>> 24;
	}

	// One frame with @payload: a Uint8Array, or nothing.
	frame(type, flags, stream, payload) {
		const length = payload === undefined ? 0 : payload.length;
		const at = this.reserve(HEADER_BYTES + length);
		this.header(at, length, type, flags, stream);
		if (length > 0) this.out.set(payload, at + HEADER_BYTES);
		this.pos = at + HEADER_BYTES + length;
	}

	json(type, stream, value) {
		this.frame(type, 0, stream, Buffer.from(JSON.stringify(value)));
	}

	credit(stream, bytes) {
		const at = this.reserve(HEADER_BYTES + 4);
		this.header(at, 4, CREDIT, 0, stream);
		this.out.writeUInt32LE(bytes, at + HEADER_BYTES);
		this.pos = at + HEADER_BYTES + 4;
	}

	// Writes what there is. Returns true when nothing waits any more.
	flush() {
		this.generation++;
		while (this.overflow.length > 0) {
			const first = this.overflow[0];
			const n = this.write(first, 0, first.length);
			this.overflowBytes -= n;
			if (n < first.length) {
				this.overflow[0] = first.subarray(n);
				return false;
			}
			this.overflow.shift();
		}
		this.sent += this.write(this.out, this.sent, this.pos);
		if (this.sent < this.pos) return false;
		this.sent = 0;
		this.pos = 0;
		if (this.out.length > WRITE_BUFFER_BYTES) {
			this.out = Buffer.allocUnsafeSlow(WRITE_BUFFER_BYTES);
		}
		return true;
	}

	write(buffer, from, to) {
		let at = from;
		while (at < to) {
			try {
				at += writeSync(this.fd, buffer, at, to - at);
			} catch (error) {
				if (error.code === 'EINTR') continue;
				if (error.code === 'EAGAIN') {
					this.retryLater();
				} else {
					// EPIPE: the host is gone, which the reading side tells as well.
					nextTick(() => this.fail(`the channel broke: ${error.code}`));
				}
				break;
			}
		}
		return at - from;
	}

	retryLater() {
		if (this.retry !== null) return;
		this.retry = after(() => {
			this.retry = null;
			this.flush();
		}, RETRY_MS);
	}

	// Bytes that wait for the host to read.
	queued() {
		return this.overflowBytes + this.pos - this.sent;
	}

	// For log writers: true when a line may be added. Blocks while the queue is full, so a flood
	// runs at the speed of the host and memory stays bounded; false when the host has taken
	// nothing for STALL_LIMIT_MS (from then on at once, until it takes something).
	admitLog() {
		if (this.queued() < MAX_QUEUED_BYTES) {
			this.stalled = false;
			return true;
		}
		if (this.drain(this.stalled ? 0 : STALL_LIMIT_MS, MAX_QUEUED_BYTES / 2)) {
			this.stalled = false;
			return true;
		}
		this.stalled = true;
		return false;
	}

	// Writes until at most @target bytes wait; gives up after @limit ms without any progress.
	drain(limit, target) {
		let before = this.queued();
		let last = now();
		for (;;) {
			this.flush();
			const left = this.queued();
			if (left <= target || this.closed) return true;
			if (left < before) {
				before = left;
				last = now();
			} else if (now() - last >= limit) {
				return false;
			} else {
				Atomics.wait(sleepCell, 0, 0, RETRY_MS);
			}
		}
	}
}

module.exports = {
	Channel,
	HELLO, INIT, READY, REQUEST, RESPONSE, BODY, ERROR, CREDIT, CANCEL, LOG, PING, PONG, DRAIN, CHECKPOINT, RESTORED, FIN,
	HEADER_BYTES, MAX_BODY, MAX_PAYLOAD,
};
