/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SIGNALS_H
#define NEST_SANDBOX_SIGNALS_H

/*
 * Gives every signal of the calling process its default disposition, those included that the C
 * library keeps for itself and a parent may have left ignored. The mask stays as it is.
 */
void nest_signals_reset(void);

#endif
