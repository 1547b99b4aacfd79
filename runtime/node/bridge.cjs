// SPDX-License-Identifier: Apache-2.0
'use strict';

// An HTTP request for an event handler: the event has the shape of API Gateway's payload format
// 2.0, and so has the answer.

const { add, invalid } = require('./fields.cjs');

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const TEXT_TYPES = 'json|xml|javascript|x-www-form-urlencoded|graphql|x-ndjson';
const TEXT_TYPE = new RegExp(`^(?:text/|application/(?:[\\w.-]+\\+)?(?:${TEXT_TYPES})\\b)`, 'i');
const JSON_FIELDS = ['content-type', 'application/json'];

function toEvent(stream, buffer, start, end) {
	const { headers, cookies } = joinHeaders(stream.headers);
	const mark = stream.target.indexOf('?');
	const rawPath = mark === -1 ? stream.target : stream.target.slice(0, mark);
	const rawQueryString = mark === -1 ? '' : stream.target.slice(mark + 1);
	const now = Date.now();
	const event = {
		version: '2.0',
		routeKey: '$default',
		rawPath,
		rawQueryString,
		headers,
		requestContext: {
			domainName: headers.host,
			http: {
				method: stream.method,
				path: rawPath,
				protocol: 'HTTP/1.1',
				sourceIp: sourceAddress(headers['x-forwarded-for']),
				userAgent: headers['user-agent'],
			},
			requestId: stream.requestId,
			routeKey: '$default',
			stage: '$default',
			time: clfTime(new Date(now)),
			timeEpoch: now,
		},
		isBase64Encoded: false,
	};
	if (cookies.length > 0) event.cookies = cookies;
	if (rawQueryString !== '') event.queryStringParameters = joinQuery(rawQueryString);
	if (end > start) {
		event.isBase64Encoded = !isText(headers);
		event.body = event.isBase64Encoded ? buffer.base64Slice(start, end) : buffer.utf8Slice(start, end);
	}
	return event;
}

function joinHeaders(raw) {
	const headers = {};
	const cookies = [];
	for (let i = 0; i < raw.length; i += 2) {
		const name = raw[i];
		if (name === 'cookie') cookies.push(...raw[i + 1].split(/;\s*/).filter((c) => c !== ''));
		else if (Object.hasOwn(headers, name)) headers[name] += `,${raw[i + 1]}`;
		else setOwn(headers, name, raw[i + 1]);
	}
	return { headers, cookies };
}

// A plain assignment of '__proto__' would be no property.
function setOwn(object, name, value) {
	if (name === '__proto__') {
		Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
	} else {
		object[name] = value;
	}
}

function joinQuery(query) {
	const joined = {};
	for (const [name, value] of new URLSearchParams(query)) {
		if (Object.hasOwn(joined, name)) joined[name] += `,${value}`;
		else setOwn(joined, name, value);
	}
	return joined;
}

// The last one is what the gateway itself saw; what stands before it anyone may have sent.
function sourceAddress(forwarded) {
	if (forwarded === undefined) return '127.0.0.1';
	return forwarded.slice(forwarded.lastIndexOf(',') + 1).trim();
}

function clfTime(date) {
	const two = (n) => String(n).padStart(2, '0');
	return `${two(date.getUTCDate())}/${MONTHS[date.getUTCMonth()]}/${date.getUTCFullYear()}:` +
		`${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000`;
}

function isText(headers) {
	return headers['content-encoding'] === undefined && TEXT_TYPE.test(headers['content-type'] ?? '');
}

// {statusCode, headers, multiValueHeaders, cookies} as a status and head fields.
function head(answer) {
	const status = Number(answer.statusCode ?? 200);
	if (!Number.isInteger(status) || status < 200 || status > 599) {
		throw invalid(`statusCode must be an integer from 200 to 599, not ${answer.statusCode}`);
	}
	const fields = [];
	for (const [name, value] of Object.entries(answer.headers ?? {})) add(fields, name, value);
	for (const [name, values] of Object.entries(answer.multiValueHeaders ?? {})) add(fields, name, values);
	add(fields, 'set-cookie', answer.cookies);
	return { status, fields };
}

function respond(stream, value) {
	const events = require('./event.cjs');
	if (events.isStreamable(value)) {
		events.pump(stream, value, 200, ['content-type', 'application/octet-stream']);
		return;
	}
	if (value === null || typeof value !== 'object' || value.statusCode === undefined) {
		stream.respondText(200, JSON_FIELDS, events.toJson(value));
		return;
	}
	const { status, fields } = head(value);
	if (events.isStreamable(value.body)) {
		events.pump(stream, value.body, status, withType(fields, 'application/octet-stream'));
		return;
	}
	respondBody(stream, status, fields, value, events);
}

function respondBody(stream, status, fields, value, events) {
	const { body } = value;
	if (body === undefined || body === null) {
		stream.respondText(status, fields, '');
	} else if (typeof body !== 'string') {
		const binary = body instanceof Uint8Array;
		const typed = withType(fields, binary ? 'application/octet-stream' : 'application/json');
		if (binary) sendBytes(stream, status, typed, body);
		else stream.respondText(status, typed, events.toJson(body));
	} else if (value.isBase64Encoded) {
		sendBytes(stream, status, fields, Buffer.from(body, 'base64'));
	} else {
		stream.respondText(status, withType(fields, 'application/json'), body);
	}
}

function sendBytes(stream, status, fields, bytes) {
	stream.respond(status, fields, bytes);
	stream.finish();
}

function withType(fields, type) {
	for (let i = 0; i < fields.length; i += 2) {
		if (fields[i] === 'content-type') return fields;
	}
	return [...fields, 'content-type', type];
}

module.exports = { toEvent, respond, head, sourceAddress };
