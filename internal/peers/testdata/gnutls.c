/* A peer on GnuTLS; see peer.h. */
#include "peer.h"

#include <gnutls/dtls.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static gnutls_session_t tls;
static gnutls_priority_t priorities;
static gnutls_psk_client_credentials_t client_credentials;
static gnutls_psk_server_credentials_t server_credentials;

/* The parts of a priority string that together allow one suite. */
static const char *priority_of(uint16_t id) {
	switch (id) {
	case 0x00AE: return ":+PSK:+AES-128-CBC:+SHA256";
	case 0xC0A8: return ":+PSK:+AES-128-CCM-8:+AEAD";
	case 0xC0A4: return ":+PSK:+AES-128-CCM:+AEAD";
	case 0x00A8: return ":+PSK:+AES-128-GCM:+AEAD";
	case 0x00A9: return ":+PSK:+AES-256-GCM:+AEAD";
	case 0xCCAB: return ":+PSK:+CHACHA20-POLY1305:+AEAD";
	case 0xC037: return ":+ECDHE-PSK:+AES-128-CBC:+SHA256";
	case 0xCCAC: return ":+ECDHE-PSK:+CHACHA20-POLY1305:+AEAD";
	}
	return NULL; /* GnuTLS has no ECDHE_PSK with GCM or CCM */
}

static int make_priorities(const struct suite *const *suites, size_t n) {
	char text[1024];
	int at = snprintf(text, sizeof text, "NONE:+VERS-%s1.2:+COMP-NULL:+SIGN-ALL%s%s", opt.dtls ? "DTLS" : "TLS",
			  opt.ems ? "" : ":%NO_SESSION_HASH", opt.etm ? "" : ":%NO_ETM");
	for (size_t i = 0; i < n; i++)
		at += snprintf(text + at, sizeof text - at, "%s", priority_of(suites[i]->id));
	const char *groups = ":+GROUP-X25519:+GROUP-SECP256R1";
	if (opt.group != NULL)
		groups = strcmp(opt.group, "X25519") == 0 ? ":+GROUP-X25519" : ":+GROUP-SECP256R1";
	snprintf(text + at, sizeof text - at, "%s", groups);
	return gnutls_priority_init(&priorities, text, NULL);
}

int lib_supports(const struct suite *s) {
	unsigned char id[2];
	unsigned int index;
	if (priority_of(s->id) == NULL || make_priorities(&s, 1) != 0)
		return 0;
	int found = 0;
	for (unsigned int i = 0;; i++) {
		int rc = gnutls_priority_get_cipher_suite_index(priorities, i, &index);
		if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (rc == 0 && gnutls_cipher_suite_info(index, id, NULL, NULL, NULL, NULL) != NULL)
			found |= (id[0] << 8 | id[1]) == s->id;
	}
	gnutls_priority_deinit(priorities);
	return found;
}

static void check(int rc, const char *what) {
	if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED || rc == GNUTLS_E_WARNING_ALERT_RECEIVED)
		alert_received = gnutls_alert_get(tls);
	if (rc >= 0)
		return;
	/* GnuTLS leaves the sending of an alert to the application. */
	if (tls != NULL && alert_received < 0) {
		int level;
		alert_sent = gnutls_error_to_alert(rc, &level);
		gnutls_alert_send_appropriate(tls, rc);
	}
	die("%s: %s", what, gnutls_strerror(rc));
}

static int find_key(gnutls_session_t s, const gnutls_datum_t *username, gnutls_datum_t *key) {
	(void)s;
	if (username->size != opt.identity_len || memcmp(username->data, opt.identity, opt.identity_len) != 0)
		return -1;
	memcpy(session.identity, username->data, username->size);
	session.identity_len = username->size;
	key->data = gnutls_malloc(opt.psk_len);
	key->size = (unsigned int)opt.psk_len;
	memcpy(key->data, opt.psk, opt.psk_len);
	return 0;
}

void lib_setup(void) {
	check(make_priorities(opt.suites, opt.suites_len), "priorities");
	if (opt.server) {
		gnutls_psk_allocate_server_credentials(&server_credentials);
		gnutls_psk_set_server_credentials_function2(server_credentials, find_key);
		if (opt.hint != NULL)
			gnutls_psk_set_server_credentials_hint(server_credentials, opt.hint);
		return;
	}
	gnutls_datum_t identity = {opt.identity, (unsigned int)opt.identity_len};
	gnutls_datum_t key = {opt.psk, (unsigned int)opt.psk_len};
	gnutls_psk_allocate_client_credentials(&client_credentials);
	check(gnutls_psk_set_client_credentials2(client_credentials, &identity, &key, GNUTLS_PSK_KEY_RAW), "credentials");
}

static ssize_t push(gnutls_transport_ptr_t fd, const void *data, size_t len) {
	return send((int)(intptr_t)fd, data, len, 0);
}

/* answer_cookies sends HelloVerifyRequests until a ClientHello with a good cookie is queued. */
static void answer_cookies(int fd) {
	gnutls_datum_t key;
	gnutls_dtls_prestate_st prestate;
	uint8_t hello[4096];
	gnutls_key_generate(&key, GNUTLS_COOKIE_KEY_SIZE);
	for (;;) {
		ssize_t n = recv(fd, hello, sizeof hello, MSG_PEEK);
		if (n < 0)
			die("no ClientHello");
		memset(&prestate, 0, sizeof prestate);
		/* The socket is connected to one client, so a constant serves as its address. */
		if (gnutls_dtls_cookie_verify(&key, "client", 6, hello, (size_t)n, &prestate) == 0)
			break;
		gnutls_dtls_cookie_send(&key, "client", 6, &prestate, (gnutls_transport_ptr_t)(intptr_t)fd, push);
		recv(fd, hello, sizeof hello, 0);
	}
	gnutls_dtls_prestate_set(tls, &prestate);
	gnutls_free(key.data);
}

static void fill_session(void) {
	gnutls_datum_t client, server;
	unsigned char id[2] = {0, 0};
	size_t sni_len = sizeof session.sni;
	unsigned int type;
	gnutls_kx_algorithm_t kx;
	gnutls_cipher_algorithm_t cipher;
	gnutls_mac_algorithm_t mac;

	/* GnuTLS tells the suite's parts; its number is found by walking the list. */
	for (size_t i = 0; gnutls_cipher_suite_info(i, id, &kx, &cipher, &mac, NULL) != NULL; i++)
		if (kx == gnutls_kx_get(tls) && cipher == gnutls_cipher_get(tls) && mac == gnutls_mac_get(tls))
			break;
	session.suite = (uint16_t)(id[0] << 8 | id[1]);
	session.ems = gnutls_session_ext_master_secret_status(tls) != 0;
	session.etm = gnutls_session_etm_status(tls) != 0;
	if (!opt.server) {
		memcpy(session.identity, opt.identity, opt.identity_len);
		session.identity_len = opt.identity_len;
		snprintf(session.sni, sizeof session.sni, "%s", opt.sni ? opt.sni : "");
	} else if (gnutls_server_name_get(tls, session.sni, &sni_len, &type, 0) != 0) {
		session.sni[0] = 0;
	}
	gnutls_session_get_random(tls, &client, &server);
	memcpy(session.client_random, client.data, 32);
	memcpy(session.server_random, server.data, 32);
	session.have_randoms = 1;
	check(gnutls_prf_rfc5705(tls, strlen(opt.label), opt.label, 0, NULL, opt.export_len, (char *)session.exported), "exporter");
}

void lib_handshake(int fd) {
	unsigned int flags = (opt.server ? GNUTLS_SERVER : GNUTLS_CLIENT) | (opt.dtls ? GNUTLS_DATAGRAM : 0);
	int rc;
	check(gnutls_init(&tls, flags), "init");
	check(gnutls_priority_set(tls, priorities), "priorities");
	check(gnutls_credentials_set(tls, GNUTLS_CRD_PSK, opt.server ? (void *)server_credentials : (void *)client_credentials),
	      "credentials");
	gnutls_transport_set_int(tls, fd);
	if (opt.fragment > 0) /* RFC 8449, of which GnuTLS always makes use */
		check((int)gnutls_record_set_max_recv_size(tls, (size_t)opt.fragment), "record size limit");
	if (opt.sni != NULL && !opt.server)
		check(gnutls_server_name_set(tls, GNUTLS_NAME_DNS, opt.sni, strlen(opt.sni)), "server name");
	if (opt.dtls) {
		gnutls_dtls_set_timeouts(tls, 1000, 15000);
		if (opt.mtu > 0)
			gnutls_dtls_set_mtu(tls, (unsigned int)opt.mtu);
		if (opt.server)
			answer_cookies(fd);
	}
	do
		rc = gnutls_handshake(tls);
	while (rc < 0 && !gnutls_error_is_fatal(rc));
	check(rc, "handshake");
	fill_session();
}

ssize_t lib_read(void *buf, size_t len) {
	ssize_t n;
	do
		n = gnutls_record_recv(tls, buf, len);
	while (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED);
	if (n == GNUTLS_E_PREMATURE_TERMINATION || n == GNUTLS_E_PULL_ERROR)
		return -1;
	check((int)n, "read");
	return n;
}

void lib_write(const void *buf, size_t len) {
	for (size_t done = 0; done < len;) {
		ssize_t n = gnutls_record_send(tls, (const char *)buf + done, len - done);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			continue;
		check((int)n, "write");
		done += (size_t)n;
	}
}

void lib_close(void) {
	gnutls_bye(tls, GNUTLS_SHUT_WR);
}
