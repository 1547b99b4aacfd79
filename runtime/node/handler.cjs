// SPDX-License-Identifier: Apache-2.0
'use strict';

// Finds and loads the function's handler, "path/file.export".

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');
const { pathToFileURL } = require('node:url');
const { RuntimeError } = require('./errors.cjs');
const snapshot = require('./snapshot.cjs');

const EXTENSIONS = ['.js', '.cjs', '.mjs'];
const MARK_STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');

// Returns a function: (event, context, callback) or (req, res), by @interface. Throws a
// RuntimeError that names the file and what was looked for, or what user code threw.
async function load(codeDir, handler, kind) {
	const { file, names } = split(handler);
	const found = locate(codeDir, file, handler);
	const exported = await importFile(found);
	snapshot.adopt(exported);
	if (kind === 'http') return httpHandler(exported, names, handler, found);
	const value = lookUp(exported, names);
	if (typeof value !== 'function') throw notFound(handler, found, names.join('.'), value, exported);
	return value;
}

function split(handler) {
	const base = handler.lastIndexOf('/') + 1;
	const dot = handler.indexOf('.', base);
	if (dot <= base || dot === handler.length - 1 || handler.split('/').includes('..')) {
		throw new RuntimeError('Runtime.MalformedHandlerName',
			`the handler '${handler}' is not of the form 'path/file.export'`);
	}
	return { file: handler.slice(0, dot), names: handler.slice(dot + 1).split('.') };
}

function locate(codeDir, file, handler) {
	const stem = path.join(codeDir, file);
	for (const extension of EXTENSIONS) {
		if (fs.existsSync(stem + extension)) return stem + extension;
	}
	const index = path.join(stem, 'index.js');
	if (fs.existsSync(index)) return index;
	throw new RuntimeError('Runtime.ImportModuleError',
		`no file for the handler '${handler}': looked for ${stem}.js, .cjs, .mjs and ${index}`);
}

async function importFile(file) {
	try {
		if (file.endsWith('.mjs')) return await import(pathToFileURL(file).href);
		try {
			return createRequire(file)(file);
		} catch (error) {
			// "type": "module", or a top-level await on the way.
			if (error?.code !== 'ERR_REQUIRE_ESM' && error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
			return await import(pathToFileURL(file).href);
		}
	} catch (error) {
		throw explain(error, file);
	}
}

function explain(error, file) {
	if (error instanceof SyntaxError) {
		return new RuntimeError('Runtime.UserCodeSyntaxError', `load '${file}': ${error.message}`, error);
	}
	if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') {
		const text = String(error.message).split('\n', 1)[0];
		return new RuntimeError('Runtime.ImportModuleError', `load '${file}': ${text}`, error);
	}
	return error;
}

// The export @names of @exported, a module's exports or namespace; undefined when there is none.
function lookUp(exported, names) {
	const direct = walk(exported, names);
	if (direct !== undefined) return direct;
	return walk(exported?.default, names);
}

function walk(value, names) {
	for (const name of names) {
		if (value === null || value === undefined) return undefined;
		value = value[name];
	}
	return value;
}

function notFound(handler, file, wanted, value, exported) {
	const has = Object.keys(exported ?? {}).slice(0, 16).join(', ');
	const why = value === undefined
		? `'${file}' exports no '${wanted}'; it exports: ${has === '' ? 'nothing' : has}`
		: `'${wanted}' in '${file}' is of type ${typeof value}, not a function`;
	return new RuntimeError('Runtime.HandlerNotFound', `no handler '${handler}': ${why}`);
}

// For applications: the export itself, else 'app', the default export or the module as a whole.
async function httpHandler(exported, names, handler, file) {
	const named = lookUp(exported, names);
	const candidates = named !== undefined ? [named]
		: [lookUp(exported, ['app']), exported?.default, exported];
	for (const candidate of candidates) {
		const listener = await asListener(candidate);
		if (listener !== null) return listener;
	}
	const wanted = `${names.join('.')}' (or 'app', or a default export) that is a (req, res) function ` +
		'or an application with handle(), callback() or routing()';
	throw new RuntimeError('Runtime.HandlerNotFound',
		`no handler '${handler}': '${file}' exports no '${wanted}`);
}

async function asListener(value) {
	if (typeof value === 'function') return value;
	if (value === null || typeof value !== 'object') return null;
	if (typeof value.handle === 'function') return (req, res) => value.handle(req, res);
	if (typeof value.callback === 'function') return value.callback();
	if (typeof value.routing === 'function') {
		if (typeof value.ready === 'function') await value.ready();
		return (req, res) => value.routing(req, res);
	}
	if (typeof value.emit === 'function' && typeof value.listen === 'function') {
		return (req, res) => {
			value.emit('request', req, res);
		};
	}
	return null;
}

module.exports = { load, MARK_STREAMING };
