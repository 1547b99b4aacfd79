// SPDX-License-Identifier: Apache-2.0
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');

// A streamed response: each part reaches the client when it is written.
exports.handler = awslambda.streamifyResponse(async (event, responseStream, context) => {
	const parts = event?.parts ?? 5;
	responseStream.setContentType('application/x-ndjson');
	for (let part = 1; part <= parts; part += 1) {
		responseStream.write(`${JSON.stringify({ part, of: parts })}\n`);
		await sleep(event?.pauseMs ?? 20, undefined, { signal: context.signal });
	}
	responseStream.end();
});
