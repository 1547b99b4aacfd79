/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libnftables, by which CRIU can lock a network while it freezes what uses it, and save
 * the rules of a network namespace. Nestlet always asks for no lock, and freezes workers from inside of
 * their network namespace, which is no part of what is saved. CRIU calls it at one time besides: to
 * find out whether the kernel has a form of set that only that lock needs. There it wants a context,
 * and takes a command that fails for an answer: no.
 */
struct nft_ctx;

struct nft_ctx *nft_ctx_new(unsigned int flags);
void nft_ctx_free(struct nft_ctx *context);
int nft_ctx_buffer_output(struct nft_ctx *context);
int nft_ctx_buffer_error(struct nft_ctx *context);
void *nft_ctx_set_output(struct nft_ctx *context, void *file);
void *nft_ctx_set_error(struct nft_ctx *context, void *file);
const char *nft_ctx_get_error_buffer(struct nft_ctx *context);
int nft_run_cmd_from_buffer(struct nft_ctx *context, const char *command);

struct nft_ctx *nft_ctx_new(unsigned int flags)
{
	static long none;

	(void)flags;
	return (struct nft_ctx *)&none;
}

void nft_ctx_free(struct nft_ctx *context)
{
	(void)context;
}

int nft_ctx_buffer_output(struct nft_ctx *context)
{
	(void)context;
	return 0;
}

int nft_ctx_buffer_error(struct nft_ctx *context)
{
	(void)context;
	return 0;
}

void *nft_ctx_set_output(struct nft_ctx *context, void *file)
{
	(void)context;
	return file;
}

void *nft_ctx_set_error(struct nft_ctx *context, void *file)
{
	(void)context;
	return file;
}

const char *nft_ctx_get_error_buffer(struct nft_ctx *context)
{
	(void)context;
	return "this CRIU was started without libnftables, by Nestlet's stand-in for it";
}

int nft_run_cmd_from_buffer(struct nft_ctx *context, const char *command)
{
	(void)context;
	(void)command;
	return -1;
}
