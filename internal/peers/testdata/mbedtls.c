/* A peer on Mbed TLS 2.28; see peer.h. */
#include "peer.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/ssl_internal.h>
#include <mbedtls/timing.h>
#include <stdio.h>
#include <string.h>

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context drbg;
static mbedtls_ssl_config conf;
static mbedtls_ssl_context ssl;
static mbedtls_ssl_cookie_ctx cookies;
static mbedtls_timing_delay_context timer;
static mbedtls_net_context sock;
static int suite_ids[MAX_SUITES + 1];
static mbedtls_ecp_group_id groups[3];

int lib_supports(const struct suite *s) {
	return mbedtls_ssl_ciphersuite_from_id(s->id) != NULL;
}

/* Over DTLS, Mbed TLS returns to its caller after each repetition of a flight. */
static int again(int rc) {
	return rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static void check(int rc, const char *what) {
	char text[128];
	if (rc >= 0)
		return;
	if (rc == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
		alert_received = ssl.in_msg[1];
	mbedtls_strerror(rc, text, sizeof text);
	die("%s: -0x%04x %s", what, (unsigned int)-rc, text);
}

/*
 * Mbed TLS 2.28 has no RFC 5705 exporter, but hands out what one is made of:
 * PRF(master secret, label, client random || server random).
 */
static int on_keys(void *arg, const unsigned char *master, const unsigned char *block, size_t mac_len, size_t key_len,
		   size_t iv_len, const unsigned char client_random[32], const unsigned char server_random[32],
		   mbedtls_tls_prf_types prf) {
	unsigned char randoms[64];
	(void)arg, (void)block, (void)mac_len, (void)key_len, (void)iv_len;
	memcpy(randoms, client_random, 32);
	memcpy(randoms + 32, server_random, 32);
	memcpy(session.client_random, client_random, 32);
	memcpy(session.server_random, server_random, 32);
	session.have_randoms = 1;
	session.ems = ssl.handshake->extended_ms;
	return mbedtls_ssl_tls_prf(prf, master, 48, opt.label, randoms, sizeof randoms, session.exported, opt.export_len);
}

static int find_key(void *arg, mbedtls_ssl_context *s, const unsigned char *identity, size_t len) {
	(void)arg;
	if (len != opt.identity_len || memcmp(identity, opt.identity, len) != 0)
		return -1;
	memcpy(session.identity, identity, len);
	session.identity_len = len;
	return mbedtls_ssl_set_hs_psk(s, opt.psk, opt.psk_len);
}

static int on_sni(void *arg, mbedtls_ssl_context *s, const unsigned char *name, size_t len) {
	(void)arg, (void)s;
	snprintf(session.sni, sizeof session.sni, "%.*s", (int)len, name);
	return 0;
}

static unsigned char fragment_code(void) {
	switch (opt.fragment) {
	case 512: return MBEDTLS_SSL_MAX_FRAG_LEN_512;
	case 1024: return MBEDTLS_SSL_MAX_FRAG_LEN_1024;
	case 2048: return MBEDTLS_SSL_MAX_FRAG_LEN_2048;
	case 4096: return MBEDTLS_SSL_MAX_FRAG_LEN_4096;
	}
	die("Mbed TLS has no record limit of %d", opt.fragment);
}

void lib_setup(void) {
	mbedtls_ssl_config_init(&conf);
	check(mbedtls_ssl_config_defaults(&conf, opt.server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
					  opt.dtls ? MBEDTLS_SSL_TRANSPORT_DATAGRAM : MBEDTLS_SSL_TRANSPORT_STREAM,
					  MBEDTLS_SSL_PRESET_DEFAULT),
	      "config");
	mbedtls_ssl_conf_min_version(&conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
	mbedtls_ssl_conf_max_version(&conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
	for (size_t i = 0; i < opt.suites_len; i++)
		suite_ids[i] = opt.suites[i]->id;
	mbedtls_ssl_conf_ciphersuites(&conf, suite_ids);
	groups[0] = MBEDTLS_ECP_DP_CURVE25519;
	groups[1] = MBEDTLS_ECP_DP_SECP256R1;
	if (opt.group != NULL) {
		groups[0] = strcmp(opt.group, "X25519") == 0 ? MBEDTLS_ECP_DP_CURVE25519 : MBEDTLS_ECP_DP_SECP256R1;
		groups[1] = MBEDTLS_ECP_DP_NONE;
	}
	mbedtls_ssl_conf_curves(&conf, groups);
	mbedtls_ssl_conf_extended_master_secret(&conf, opt.ems ? MBEDTLS_SSL_EXTENDED_MS_ENABLED : MBEDTLS_SSL_EXTENDED_MS_DISABLED);
	mbedtls_ssl_conf_encrypt_then_mac(&conf, opt.etm ? MBEDTLS_SSL_ETM_ENABLED : MBEDTLS_SSL_ETM_DISABLED);
	mbedtls_ssl_conf_export_keys_ext_cb(&conf, on_keys, NULL);
	if (opt.fragment > 0)
		check(mbedtls_ssl_conf_max_frag_len(&conf, fragment_code()), "fragment length");
	if (opt.server) {
		mbedtls_ssl_conf_psk_cb(&conf, find_key, NULL);
		mbedtls_ssl_conf_sni(&conf, on_sni, NULL);
	} else {
		check(mbedtls_ssl_conf_psk(&conf, opt.psk, opt.psk_len, opt.identity, opt.identity_len), "psk");
		memcpy(session.identity, opt.identity, opt.identity_len);
		session.identity_len = opt.identity_len;
		snprintf(session.sni, sizeof session.sni, "%s", opt.sni ? opt.sni : "");
	}
}

/* Seeds after the fork, so that no two children share their random numbers. */
static void seed(void) {
	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&drbg);
	check(mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0), "seed");
	mbedtls_ssl_conf_rng(&conf, mbedtls_ctr_drbg_random, &drbg);
	if (opt.server && opt.dtls) {
		mbedtls_ssl_cookie_init(&cookies);
		check(mbedtls_ssl_cookie_setup(&cookies, mbedtls_ctr_drbg_random, &drbg), "cookie key");
		mbedtls_ssl_conf_dtls_cookies(&conf, mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check, &cookies);
	}
}

static void name_peer(void) {
	/* The socket is connected to one client, so a constant serves as its address. */
	if (opt.server && opt.dtls)
		check(mbedtls_ssl_set_client_transport_id(&ssl, (const unsigned char *)"client", 6), "transport id");
}

void lib_handshake(int fd) {
	int rc;
	seed();
	sock.fd = fd;
	mbedtls_ssl_init(&ssl);
	check(mbedtls_ssl_setup(&ssl, &conf), "setup");
	mbedtls_ssl_set_bio(&ssl, &sock, mbedtls_net_send, mbedtls_net_recv, mbedtls_net_recv_timeout);
	mbedtls_ssl_set_timer_cb(&ssl, &timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
	if (opt.sni != NULL)
		check(mbedtls_ssl_set_hostname(&ssl, opt.sni), "server name");
	if (opt.mtu > 0)
		mbedtls_ssl_set_mtu(&ssl, (uint16_t)opt.mtu);
	name_peer();
	while ((rc = mbedtls_ssl_handshake(&ssl)) != 0) {
		if (rc == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED) {
			check(mbedtls_ssl_session_reset(&ssl), "reset");
			name_peer();
			continue;
		}
		if (!again(rc))
			check(rc, "handshake");
	}
	session.suite = (uint16_t)ssl.session->ciphersuite;
	session.etm = ssl.session->encrypt_then_mac;
}

ssize_t lib_read(void *buf, size_t len) {
	int n;
	do
		n = mbedtls_ssl_read(&ssl, buf, len);
	while (again(n));
	if (n == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
		return 0;
	if (n == 0 || n == MBEDTLS_ERR_SSL_CONN_EOF || n == MBEDTLS_ERR_NET_CONN_RESET || n == MBEDTLS_ERR_NET_RECV_FAILED)
		return -1;
	check(n, "read");
	return n;
}

void lib_write(const void *buf, size_t len) {
	for (size_t done = 0; done < len;) {
		int n = mbedtls_ssl_write(&ssl, (const unsigned char *)buf + done, len - done);
		check(n, "write");
		done += (size_t)n;
	}
}

void lib_close(void) {
	mbedtls_ssl_close_notify(&ssl);
}
