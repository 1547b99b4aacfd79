/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_NODE_NODE_API_H
#define NEST_RUNTIME_NODE_NODE_API_H

#include <stddef.h>

/*
 * Node-API is a stable ABI: these few declarations stand for its header, which no machine that only
 * runs functions has.
 */
typedef struct napi_env_opaque *napi_env;
typedef struct napi_value_opaque *napi_value;
typedef struct napi_callback_info_opaque *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env env, napi_callback_info info);

/* Each returns 0, or why it could not be done. */
int napi_create_function(napi_env env, const char *name, size_t length, napi_callback cb, void *arg,
	napi_value *ret);
int napi_get_buffer_info(napi_env env, napi_value value, void **ret_bytes, size_t *ret_length);
int napi_get_cb_info(napi_env env, napi_callback_info info, size_t *argc, napi_value *argv,
	napi_value *ret_this, void **ret_arg);
int napi_set_named_property(napi_env env, napi_value object, const char *name, napi_value value);
int napi_throw_error(napi_env env, const char *code, const char *message);

/* What a module has and Node calls: what require() of it gives. */
napi_value napi_register_module_v1(napi_env env, napi_value exports)
	__attribute__((visibility("default")));

#endif
