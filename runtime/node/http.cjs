// SPDX-License-Identifier: Apache-2.0
'use strict';

// Handlers of (req, res) and applications: express, koa and the like.
//
// Both objects are Node's own IncomingMessage and ServerResponse, so that header rules, events and
// what frameworks reach for are as they know them. Only the lowest layer is ours: where Node would
// write the head as text and the body to a socket, the response goes to its stream. Those few
// methods are properties of each object, because express replaces the prototypes.

const http = require('node:http');
const { EventEmitter } = require('node:events');
const { RuntimeError } = require('./errors.cjs');
const { sourceAddress } = require('./bridge.cjs');
const { add } = require('./fields.cjs');
const log = require('./log.cjs');

const { IncomingMessage, ServerResponse } = http;
const EMPTY = Buffer.alloc(0);

// Node keeps this flag for 'drain' under a private symbol; pipe() looks at it.
const needDrain = Object.getOwnPropertySymbols(new ServerResponse({ method: 'GET' }))
	.find((symbol) => symbol.description === 'kNeedDrain');

let listener = null;

function configure(loaded) {
	listener = loaded;
}

// What handlers see as req.socket: the other end of the request, as the gateway tells it.
class RequestSocket extends EventEmitter {
	constructor(exchange) {
		super();
		this.exchange = exchange;
		this.readable = true;
		this.writable = true;
		this.destroyed = false;
		this.remotePort = 0;
		this.localAddress = '127.0.0.1';
		this.localPort = 0;
		this.timeout = 0;
		this.readableHighWaterMark = 65536;
		this.writableHighWaterMark = 65536;
		this.writableCorked = 1;
		this._writableState = { corked: 0 };
		this._httpMessage = null;
		Object.defineProperty(this, 'exchange', { enumerable: false });
	}

	get remoteAddress() {
		return sourceAddress(this.exchange.req.headers['x-forwarded-for']);
	}

	get remoteFamily() {
		return this.remoteAddress.includes(':') ? 'IPv6' : 'IPv4';
	}

	get encrypted() {
		const proto = this.exchange.req.headers['x-forwarded-proto'];
		return proto !== undefined && proto.slice(proto.lastIndexOf(',') + 1).trim() === 'https';
	}

	get writableLength() {
		return this.exchange.stream.pendingBytes;
	}

	get bytesWritten() {
		return 0;
	}

	address() {
		return { address: this.localAddress, port: this.localPort, family: 'IPv4' };
	}

	// The gateway's business.
	setTimeout() { return this; }
	setNoDelay() { return this; }
	setKeepAlive() { return this; }
	ref() { return this; }
	unref() { return this; }
	pause() { return this; }
	resume() { return this; }
	cork() {}
	uncork() {}

	destroy(error) {
		if (this.destroyed) return this;
		this.destroyed = true;
		this.exchange.aborted(error);
		return this;
	}

	destroySoon() {
		this.destroy();
	}
}

// One request and its response.
class Exchange {
	constructor(stream) {
		this.stream = stream;
		this.status = 0;
		this.fields = null;
		this.promised = false;
		this.callbacks = null;
		this.unread = 0;
		this.done = false;
		this.socket = new RequestSocket(this);
		this.req = makeRequest(this, stream);
		this.res = makeResponse(this);
		stream.oncancel = () => this.cancelled();
		stream.ondrain = () => this.drained();
	}

	// Body bytes for the handler; they are given back as credit when it reads on.
	data(chunk) {
		this.unread += chunk.length;
		this.req.push(chunk);
	}

	end() {
		this.req.complete = true;
		this.req.push(null);
	}

	readMore() {
		if (this.unread === 0) return;
		this.stream.consumed(this.unread);
		this.unread = 0;
	}

	// What the response has to say, the head first. Returns false when the writer should wait.
	send(chunk, callback) {
		let more;
		if (this.stream.headSent) {
			more = this.stream.write(chunk);
		} else {
			more = this.stream.respond(this.status, this.fields, chunk);
			this.fields = null;
		}
		if (typeof callback === 'function') this.whenSent(callback);
		return more;
	}

	whenSent(callback) {
		if (this.stream.pending === null) {
			process.nextTick(callback);
		} else {
			this.callbacks ??= [];
			this.callbacks.push(callback);
		}
	}

	drained() {
		if (this.callbacks !== null) {
			for (const callback of this.callbacks) process.nextTick(callback);
			this.callbacks = null;
		}
		const { res } = this;
		if (res.destroyed) return;
		if (!res.finished) {
			if (needDrain !== undefined) res[needDrain] = false;
			log.enter(this.stream, emitDrain, res);
		}
	}

	// The response is complete as far as the handler goes.
	finished() {
		this.stream.finish();
		this.whenSent(() => this.close());
	}

	close() {
		if (this.done) return;
		this.done = true;
		const { req, res } = this;
		res.destroyed = true;
		res._closed = true;
		if (!req.complete) req.destroy();
		else if (!req.readableEnded && isAwaited(req)) req.resume();
		res.emit('close');
	}

	// The caller has gone.
	cancelled() {
		if (!this.done) log.enter(this.stream, this.res.finished ? closeEarly : hangUp, this);
		// A handler that gave a promise holds the stream until it settles. Of any other nothing
		// more is known: it has been told.
		if (!this.promised) setImmediate(() => this.stream.finish());
	}

	// res.destroy() or socket.destroy() in the handler.
	aborted(error) {
		this.stream.fail(error ?? new RuntimeError('Runtime.StreamDestroyed',
			'the handler destroyed the connection before its response was complete'));
		process.nextTick(() => {
			this.socket.emit('close', error !== undefined && error !== null);
			this.close();
		});
	}
}

function isAwaited(req) {
	return req.listenerCount('end') + req.listenerCount('close') > 0;
}

function emitDrain(res) {
	res.emit('drain');
}

// The handler was done, its response was not sent yet.
function closeEarly(exchange) {
	exchange.callbacks = null;
	exchange.close();
}

function hangUp(exchange) {
	const { req, res, socket } = exchange;
	const error = new Error('aborted');
	error.code = 'ECONNRESET';
	exchange.done = true;
	socket.destroyed = true;
	socket.readable = false;
	socket.writable = false;
	res.destroyed = true;
	res._closed = true;
	exchange.callbacks = null;
	if (!req.destroyed) req.destroy(req.complete ? undefined : error);
	socket.emit('close', false);
	res.emit('close');
}

function makeRequest(exchange, stream) {
	const req = new IncomingMessage(exchange.socket);
	req.httpVersionMajor = 1;
	req.httpVersionMinor = 1;
	req.httpVersion = '1.1';
	req.method = stream.method;
	req.url = stream.target;
	req._addHeaderLines(stream.headers, stream.headers.length);
	req._read = readRequest;
	req._destroy = destroyRequest;
	req.exchange = exchange;
	Object.defineProperty(req, 'exchange', { enumerable: false });
	return req;
}

function readRequest() {
	if (!this._consumed) {
		// Node holds back reading ahead until the body is first asked for.
		this._readableState.readingMore = false;
		this._consumed = true;
	}
	this.exchange.readMore();
}

function destroyRequest(error, callback) {
	if (!this.readableEnded || !this.complete) {
		this.aborted = true;
		this.emit('aborted');
	}
	// As Node does: nobody has to listen for the end of a connection.
	process.nextTick(callback, this.listenerCount('error') > 0 ? error : null);
}

function makeResponse(exchange) {
	const res = new ServerResponse(exchange.req);
	res.exchange = exchange;
	Object.defineProperty(res, 'exchange', { enumerable: false });
	res.shouldKeepAlive = true;
	res.socket = exchange.socket;
	exchange.socket._httpMessage = res;
	res._storeHeader = storeHeader;
	res._send = send;
	res._writeRaw = writeRaw;
	res._finish = finish;
	return res;
}

// Called by Node when the head is complete: @headers is what setHeader() gathered, or what
// writeHead() was given, as an object, as pairs or as a flat list.
function storeHeader(statusLine, headers) {
	const fields = [];
	const names = this.getHeaderNames();
	if (names.length > 0) {
		for (const name of names) add(fields, name, this.getHeader(name));
	} else if (Array.isArray(headers)) {
		const pairs = headers.length > 0 && Array.isArray(headers[0]);
		const flat = pairs ? headers.flat(1) : headers;
		for (let i = 0; i + 1 < flat.length; i += 2) add(fields, flat[i], flat[i + 1]);
	} else if (headers) {
		for (const name of Object.keys(headers)) add(fields, name, headers[name]);
	}
	if (this._hasBody && typeof this._contentLength === 'number' && !this._removedContLen &&
	    !fields.includes('content-length')) {
		fields.push('content-length', String(this._contentLength));
	}
	this.chunkedEncoding = false;
	this._header = statusLine;
	this._headerSent = false;
	this.exchange.status = this.statusCode;
	this.exchange.fields = fields;
}

function send(chunk, encoding, callback) {
	if (typeof encoding === 'function') {
		callback = encoding;
		encoding = undefined;
	}
	const bytes = typeof chunk === 'string'
		? (chunk === '' ? EMPTY : Buffer.from(chunk, encoding ?? undefined))
		: chunk;
	this._headerSent = true;
	return this.exchange.send(bytes, callback);
}

// Informational responses (100, 103) end here: the gateway answers with one final response.
function writeRaw(data, encoding, callback) {
	const done = typeof encoding === 'function' ? encoding : callback;
	if (typeof done === 'function') process.nextTick(done);
	return true;
}

function finish() {
	this.emit('prefinish');
	this.exchange.finished();
}

// Begins the request of @stream with the first bytes of its body; @whole: they are all of it.
function begin(stream, first, whole) {
	if (!hasHeader(stream.headers, 'content-length')) {
		// Either tells frameworks that there is a body, as the request on the wire did.
		if (!whole) stream.headers = stream.headers.concat('transfer-encoding', 'chunked');
		else if (first.length > 0) stream.headers = stream.headers.concat('content-length', String(first.length));
	}
	const exchange = new Exchange(stream);
	if (first.length > 0) exchange.data(first);
	if (whole) exchange.end();
	else stream.consumer = exchange;
	log.enter(stream, run, exchange);
}

function hasHeader(headers, name) {
	for (let i = 0; i < headers.length; i += 2) {
		if (headers[i] === name) return true;
	}
	return false;
}

function run(exchange) {
	let result;
	try {
		result = listener(exchange.req, exchange.res);
	} catch (error) {
		exchange.stream.fail(error ?? new Error(`the handler threw ${error}`));
		return;
	}
	if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
		settleLater(exchange, result);
	}
}

async function settleLater(exchange, result) {
	exchange.promised = true;
	try {
		await result;
	} catch (error) {
		exchange.stream.fail(error ?? new Error(`the handler threw ${error}`));
	}
	exchange.promised = false;
	if (exchange.stream.cancelled) exchange.stream.finish();
}

module.exports = { configure, begin };
