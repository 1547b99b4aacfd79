// SPDX-License-Identifier: Apache-2.0
'use strict';

// Header fields of a response: what may be sent, in which form.

const { RuntimeError } = require('./errors.cjs');

const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-authenticate', 'proxy-connection', 'te',
	'trailer', 'transfer-encoding', 'upgrade']);
const NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const MAX_FIELDS = 256;
const MAX_BYTES = 65536;
const FIELD_BYTES = 8;

function invalid(why) {
	return new RuntimeError('Function.InvalidResponse', `the handler's HTTP response is not valid: ${why}`);
}

// Appends @name and @value, a string or what becomes one, or a list of such, unless they belong to
// the connection. Throws when they can't be sent.
function add(fields, name, value) {
	if (value === undefined || value === null) return;
	const key = String(name).toLowerCase();
	if (HOP_BY_HOP.has(key)) return;
	if (!NAME.test(key)) throw invalid(`header name '${key}'`);
	for (const one of Array.isArray(value) ? value : [value]) {
		const text = String(one);
		if (!VALUE.test(text)) throw invalid(`header '${key}' has characters that a header can't carry`);
		fields.push(key, text);
	}
}

// The bytes that @fields take in a response head. Throws when they are more than a head may have.
function sizeOf(fields) {
	let size = 0;
	for (let i = 0; i < fields.length; i += 2) {
		size += FIELD_BYTES + fields[i].length + fields[i + 1].length;
	}
	if (size > MAX_BYTES || fields.length > 2 * MAX_FIELDS) {
		throw invalid(`${fields.length / 2} headers of ${size} bytes; ` +
			`at most ${MAX_FIELDS} of ${MAX_BYTES} bytes can be sent`);
	}
	return size;
}

module.exports = { add, sizeOf, invalid };
