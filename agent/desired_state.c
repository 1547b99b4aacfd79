/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/desired_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "runtime/function.h"

#define PROTOCOL 1
#define GENERATION_MAX ((int64_t)1 << 53) /* what every JSON reader keeps exactly */
#define WORKERS_MAX 4096

void nest_desired_state_free(struct nest_desired_state *state)
{
	if (!state)
		return;
	for (size_t i = 0; i < state->nfunctions; i++) {
		nest_function_free(state->functions[i].spec);
		free(state->functions[i].name);
		free(state->functions[i].version);
		free(state->functions[i].why);
	}
	for (size_t i = 0; i < state->nbounds; i++) {
		free(state->bounds[i].name);
		free(state->bounds[i].why);
	}
	free(state->functions);
	free(state->bounds);
	free(state);
}

/* A copy of member @key where it is a string of at most @max bytes, else "". NULL: no memory. */
static char *copy_member(const cJSON *object, const char *key, size_t max)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!cJSON_IsString(item) || strlen(item->valuestring) > max)
		return strdup("");
	return strdup(item->valuestring);
}

static int no_memory(struct nest_err *err)
{
	return nest_err_set(err, -ENOMEM, "read the scaler's reply");
}

static int read_function(struct nest_desired_function *function, const cJSON *object,
	const cJSON *defaults, bool kept, struct nest_err *err)
{
	int (*parse)(const cJSON *, const cJSON *, struct nest_function_spec **,
		struct nest_schema_place *, struct nest_err *) =
		kept ? nest_function_parse_kept : nest_function_parse_at;
	struct nest_err why = NEST_ERR_INIT;
	int rc;

	function->name = copy_member(object, "name", NEST_FUNCTION_NAME_MAX);
	function->version = copy_member(object, "version", NEST_FUNCTION_VERSION_MAX);
	if (!function->name || !function->version)
		return no_memory(err);
	rc = cJSON_IsObject(object) ? parse(object, defaults, &function->spec, NULL, &why)
				    : nest_err_say(&why, -EINVAL, "a spec is a JSON object, not %s",
					      nest_json_type_name(object));
	if (rc == 0)
		return 0;
	function->why = strdup(nest_err_text(&why));
	return function->why ? 0 : no_memory(err);
}

static int read_functions(struct nest_desired_state *state, const cJSON *root,
	const cJSON *defaults, bool kept, struct nest_err *err)
{
	const cJSON *array = NULL, *item;
	int rc = nest_json_get_array(root, "functions", &array, err);

	if (rc == 1)
		return nest_err_say(err, -EINVAL,
			"'functions' is missing: a new generation says all that should run, [] for "
			"nothing");
	if (rc < 0)
		return rc;
	state->functions = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof(*state->functions));
	if (!state->functions)
		return no_memory(err);
	cJSON_ArrayForEach(item, array) {
		rc = read_function(
			&state->functions[state->nfunctions++], item, defaults, kept, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int check_bounds(const cJSON *item, struct nest_desired_bounds *bounds, struct nest_err *err)
{
	int64_t min = 0, max = 0;
	int rc;

	if (!nest_function_is_name(bounds->name))
		return nest_err_say(err, -EINVAL, "this is no function's name");
	if (!cJSON_IsObject(item))
		return nest_err_say(err, -EINVAL, "it must be an object with 'min' and 'max'");
	rc = nest_json_get_int(item, "min", 0, WORKERS_MAX, &min, err);
	if (rc == 0)
		rc = nest_json_get_int(item, "max", 1, WORKERS_MAX, &max, err);
	if (rc == 1)
		return nest_err_say(err, -EINVAL, "'min' or 'max' is missing");
	if (rc == 0 && min > max)
		return nest_err_say(
			err, -EINVAL, "'min' is %d, more than 'max', %d", (int)min, (int)max);
	if (rc < 0)
		return rc;
	bounds->min = (uint32_t)min;
	bounds->max = (uint32_t)max;
	return 0;
}

static int read_bounds(struct nest_desired_state *state, const cJSON *root, struct nest_err *err)
{
	const cJSON *object = NULL, *item;
	int rc = nest_json_get_object(root, "workers", &object, err);

	if (rc != 0)
		return rc < 0 ? rc : 0;
	state->bounds = calloc((size_t)cJSON_GetArraySize(object) + 1, sizeof(*state->bounds));
	if (!state->bounds)
		return no_memory(err);
	cJSON_ArrayForEach(item, object) {
		struct nest_desired_bounds *bounds = &state->bounds[state->nbounds++];
		struct nest_err why = NEST_ERR_INIT;

		bounds->name = strndup(item->string, NEST_FUNCTION_NAME_MAX + 1);
		if (!bounds->name)
			return no_memory(err);
		if (check_bounds(item, bounds, &why) == 0)
			continue;
		bounds->why = strdup(nest_err_text(&why));
		if (!bounds->why)
			return no_memory(err);
	}
	return 0;
}

static int read_head(struct nest_desired_state *state, const cJSON *root, struct nest_err *err)
{
	int64_t protocol = 0, generation = 0;
	int rc;

	if (!cJSON_IsObject(root))
		return nest_err_say(err, -EINVAL, "a reply is a JSON object, not %s",
			nest_json_type_name(root));
	rc = nest_json_get_int(root, "protocol", PROTOCOL, PROTOCOL, &protocol, err);
	if (rc == 1)
		return nest_err_say(err, -EINVAL, "'protocol' is missing: must be %d", PROTOCOL);
	if (rc == 0)
		rc = nest_json_get_bool(root, "unchanged", &state->unchanged, err);
	if (rc >= 0)
		rc = nest_json_get_bool(root, "drain", &state->drain, err);
	if (rc >= 0)
		rc = nest_json_get_int(root, "generation", 1, GENERATION_MAX, &generation, err);
	if (rc == 1 && !state->unchanged)
		return nest_err_say(err, -EINVAL, "'generation' is missing");
	state->generation = (uint64_t)generation;
	return rc < 0 ? rc : 0;
}

int nest_desired_state_parse(const char *text, size_t n, const cJSON *defaults, uint64_t held,
	bool kept, struct nest_desired_state **ret, struct nest_err *err)
{
	struct nest_desired_state *state = calloc(1, sizeof(*state));
	nest_autojson cJSON *root = NULL;
	int rc;

	if (!state)
		return no_memory(err);
	rc = nest_json_parse(text, n, &root, err);
	if (rc == 0)
		rc = read_head(state, root, err);
	if (rc == 0 && !state->unchanged && state->generation > held) {
		rc = read_functions(state, root, defaults, kept, err);
		if (rc == 0)
			rc = read_bounds(state, root, err);
	}
	if (rc < 0) {
		nest_desired_state_free(state);
		return rc;
	}
	*ret = state;
	return 0;
}
