/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What Node's own API has no way to ask for: fresh entropy for the random generator of the OpenSSL
 * inside it. A restored process continues its siblings' generator, because OpenSSL notices a copy
 * of itself by the process number alone, and that is the same in each clone. OpenSSL's RAND_add()
 * reseeds the primary generator; those of the threads reseed from it before their next output.
 */
#include "runtime/node/node_api.h"

/* Weak: a Node without them must load this, and say what is missing. */
void RAND_add(const void *bytes, int n, double entropy) __attribute__((weak));
int RAND_bytes(unsigned char *bytes, int n) __attribute__((weak));

#define FILLED_MAX 4
#define FILLED_BYTES_MAX ((size_t)1 << 20)

/*
 * reseed(entropy, ...filled): each of @filled, buffers, then holds what the generator gives next. In here, since
 * Node's own ways to that run far more code, each page of which a clone meets for the first time.
 */
static napi_value reseed(napi_env env, napi_callback_info info)
{
	napi_value argv[1 + FILLED_MAX] = { NULL };
	size_t argc = 1 + FILLED_MAX, length = 0;
	void *bytes = NULL;

	if (napi_get_cb_info(env, info, &argc, argv, NULL, NULL) != 0 || argc < 1 ||
		napi_get_buffer_info(env, argv[0], &bytes, &length) != 0 || length < 32 ||
		length > 4096) {
		napi_throw_error(env, NULL, "reseed wants a buffer of 32 to 4096 bytes");
		return NULL;
	}
	if (!RAND_add || !RAND_bytes) {
		napi_throw_error(
			env, NULL, "this Node does not let its random generator be reseeded");
		return NULL;
	}
	RAND_add(bytes, (int)length, (double)length);
	for (size_t i = 1; i < argc && i <= FILLED_MAX; i++) {
		if (napi_get_buffer_info(env, argv[i], &bytes, &length) != 0 ||
			length > FILLED_BYTES_MAX || RAND_bytes(bytes, (int)length) != 1) {
			napi_throw_error(env, NULL, "reseed could not fill a buffer");
			return NULL;
		}
	}
	return NULL;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
	napi_value function;

	(void)exports;
	if (napi_create_function(env, "reseed", 6, reseed, NULL, &function) != 0)
		return NULL;
	return function;
}
