// SPDX-License-Identifier: Apache-2.0
'use strict';

// The smallest useful function: JSON in, JSON out. `calls` shows that one worker serves many requests.
let calls = 0;

exports.handler = async (event, context) => {
	calls += 1;
	console.log('greeting %s', event.name ?? 'world');
	return {
		message: `Hello, ${event.name ?? 'world'}!`,
		requestId: context.awsRequestId,
		remainingMs: context.getRemainingTimeInMillis(),
		calls,
	};
};
