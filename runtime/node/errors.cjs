// SPDX-License-Identifier: Apache-2.0
'use strict';

// What is told of a failure: {errorType, errorMessage, stackTrace}, bounded.

const MAX_TEXT = 64 * 1024;
const MAX_MESSAGE = 16 * 1024;
const MAX_LINES = 128;
// The runtime's frames say nothing to the function's author.
const OWN = `${__dirname}/`;

// An error of the runtime's own, with its type on the wire.
class RuntimeError extends Error {
	constructor(type, message, cause) {
		super(message);
		this.name = type;
		if (cause !== undefined && cause.stack !== undefined) this.stack = cause.stack;
	}
}

// @thrown: whatever user code threw. Never throws, whatever getters it has.
function describe(thrown) {
	try {
		return fromThrown(thrown);
	} catch {
		return { errorType: 'Error', errorMessage: 'an error that can not be described', stackTrace: [] };
	}
}

function fromThrown(thrown) {
	if (thrown === null || typeof thrown !== 'object') {
		return { errorType: typeof thrown, errorMessage: clip(String(thrown), MAX_MESSAGE), stackTrace: [] };
	}
	if (thrown.errorType !== undefined && thrown.stackTrace !== undefined) return thrown;
	return {
		errorType: clip(String(thrown.name || 'Error'), 256),
		errorMessage: clip(messageOf(thrown), MAX_MESSAGE),
		stackTrace: lines(thrown.stack),
	};
}

function messageOf(thrown) {
	if (typeof thrown.message === 'string') return thrown.message;
	if (thrown instanceof Error) return String(thrown.message);
	return JSON.stringify(thrown) ?? String(thrown);
}

function lines(stack) {
	if (typeof stack !== 'string') return [];
	const found = [];
	let room = MAX_TEXT - MAX_MESSAGE;
	for (const line of clip(stack, MAX_TEXT).split('\n')) {
		if (line.startsWith('    at ') && line.includes(OWN)) continue;
		room -= line.length;
		if (room < 0 || found.length === MAX_LINES) break;
		found.push(line);
	}
	return found;
}

function clip(text, limit) {
	return text.length > limit ? `${text.slice(0, limit)}...` : text;
}

module.exports = { RuntimeError, describe };
