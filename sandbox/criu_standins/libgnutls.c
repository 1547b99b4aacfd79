/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for GnuTLS, by which CRIU can encrypt what goes to and comes from a page server. Nestlet
 * uses none, and never sets CRIU's option for TLS, without which CRIU calls nothing of this. Were it
 * set, its first call would be the one for credentials, which fails as an unimplemented feature does:
 * CRIU then says so, with the text below, and ends. The others fail likewise.
 */
#define UNIMPLEMENTED (-1250L) /* GNUTLS_E_UNIMPLEMENTED_FEATURE */

/* The one type for all, for aliases share it: who expects an int takes the lower half. */
#define REFUSES(name) long name(void) __attribute__((alias("refuse")))

long refuse(void);
const char *gnutls_strerror(int error);
extern void (*gnutls_free)(void *block);

long refuse(void)
{
	return UNIMPLEMENTED;
}

const char *gnutls_strerror(int error)
{
	(void)error;
	return "this CRIU was started without GnuTLS, by Nestlet's stand-in for it";
}

static void free_nothing(void *block)
{
	(void)block; /* nothing here allocates */
}

void (*gnutls_free)(void *block) = free_nothing;

REFUSES(gnutls_bye);
REFUSES(gnutls_certificate_allocate_credentials);
REFUSES(gnutls_certificate_free_credentials);
REFUSES(gnutls_certificate_send_x509_rdn_sequence);
REFUSES(gnutls_certificate_server_set_request);
REFUSES(gnutls_certificate_set_x509_crl_file);
REFUSES(gnutls_certificate_set_x509_key_file);
REFUSES(gnutls_certificate_set_x509_system_trust);
REFUSES(gnutls_certificate_set_x509_trust_file);
REFUSES(gnutls_certificate_type_get);
REFUSES(gnutls_certificate_verification_status_print);
REFUSES(gnutls_certificate_verify_peers3);
REFUSES(gnutls_credentials_set);
REFUSES(gnutls_deinit);
REFUSES(gnutls_error_is_fatal); /* they all are */
REFUSES(gnutls_handshake);
REFUSES(gnutls_init);
REFUSES(gnutls_packet_deinit);
REFUSES(gnutls_packet_get);
REFUSES(gnutls_record_check_pending);
REFUSES(gnutls_record_recv);
REFUSES(gnutls_record_recv_packet);
REFUSES(gnutls_record_send);
REFUSES(gnutls_set_default_priority);
REFUSES(gnutls_transport_set_ptr);
REFUSES(gnutls_transport_set_pull_function);
REFUSES(gnutls_transport_set_push_function);
