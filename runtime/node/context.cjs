// SPDX-License-Identifier: Apache-2.0
'use strict';

// The context object of an event handler, in the shape that AWS's handlers expect.

// What is the same for every request; set once at INIT.
const fixed = {
	functionName: '',
	functionVersion: '',
	memoryLimitInMB: '',
	invokedFunctionArn: '',
	logGroupName: '',
	logStreamName: '',
};

function configure(init) {
	fixed.functionName = init.function;
	fixed.functionVersion = init.version;
	fixed.memoryLimitInMB = String(init.memoryMb);
	fixed.invokedFunctionArn = `arn:nestlet:function:${init.function}:${init.version}`;
	fixed.logGroupName = `/nestlet/${init.function}`;
	fixed.logStreamName = `${init.version}/${process.pid}`;
}

class Context {
	#stream;
	#call;
	#controller = null;
	#client;

	// @call.settle(error, value) answers the request.
	constructor(stream, call) {
		this.#stream = stream;
		this.#call = call;
		this.callbackWaitsForEmptyEventLoop = true;
		this.functionName = fixed.functionName;
		this.functionVersion = fixed.functionVersion;
		this.memoryLimitInMB = fixed.memoryLimitInMB;
		this.invokedFunctionArn = fixed.invokedFunctionArn;
		this.logGroupName = fixed.logGroupName;
		this.logStreamName = fixed.logStreamName;
		this.awsRequestId = stream.requestId;
		this.deadlineMs = stream.deadlineMs;
		this.traceparent = stream.traceparent;
		this.identity = undefined;
	}

	get requestId() {
		return this.awsRequestId;
	}

	// What the caller sent as X-Amz-Client-Context; undefined when absent or no JSON.
	get clientContext() {
		if (this.#client === undefined && this.#stream.clientContext !== undefined) {
			try {
				this.#client = JSON.parse(Buffer.from(this.#stream.clientContext, 'base64').toString());
			} catch {
				this.#client = null;
			}
		}
		return this.#client ?? undefined;
	}

	// Aborts when the caller has gone or the deadline has passed.
	get signal() {
		if (this.#controller === null) {
			this.#controller = new AbortController();
			if (this.#stream.cancelled) this.abort();
		}
		return this.#controller.signal;
	}

	getRemainingTimeInMillis() {
		return Math.max(0, this.deadlineMs - Date.now());
	}

	abort() {
		if (this.#controller === null) return;
		const reason = new Error('the request was cancelled');
		reason.name = 'AbortError';
		this.#controller.abort(reason);
	}

	done(error, value) {
		this.#call.settle(error, value);
	}

	succeed(value) {
		this.#call.settle(null, value);
	}

	fail(error) {
		this.#call.settle(error ?? new Error('context.fail() was called'), undefined);
	}
}

module.exports = { Context, configure };
