/* A peer on OpenSSL's libssl; see peer.h. */
#include "peer.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

static SSL_CTX *ctx;
static SSL *ssl;
static uint8_t cookie_secret[32];

/* Whether the ServerHello that went by carried encrypt_then_mac: OpenSSL has no getter for it. */
static int saw_etm;

static const char *openssl_name(uint16_t id) {
	switch (id) {
	case 0x00AE: return "PSK-AES128-CBC-SHA256";
	case 0xC0A8: return "PSK-AES128-CCM8";
	case 0xC0A4: return "PSK-AES128-CCM";
	case 0x00A8: return "PSK-AES128-GCM-SHA256";
	case 0x00A9: return "PSK-AES256-GCM-SHA384";
	case 0xCCAB: return "PSK-CHACHA20-POLY1305";
	case 0xC037: return "ECDHE-PSK-AES128-CBC-SHA256";
	case 0xCCAC: return "ECDHE-PSK-CHACHA20-POLY1305";
	}
	return NULL; /* OpenSSL has no ECDHE_PSK with GCM or CCM */
}

static SSL_CTX *new_ctx(void) {
	SSL_CTX *c = SSL_CTX_new(opt.dtls ? DTLS_method() : TLS_method());
	int version = opt.dtls ? DTLS1_2_VERSION : TLS1_2_VERSION;
	SSL_CTX_set_min_proto_version(c, version);
	SSL_CTX_set_max_proto_version(c, version);
	/* CCM_8's short tag counts as 64 bits of security, below the default level. */
	SSL_CTX_set_security_level(c, 0);
	return c;
}

int lib_supports(const struct suite *s) {
	const char *name = openssl_name(s->id);
	SSL_CTX *c = new_ctx();
	int ok = name != NULL && SSL_CTX_set_cipher_list(c, name) == 1;
	SSL_CTX_free(c);
	return ok;
}

static void fail(const char *what) {
	char text[256] = "no error queued";
	unsigned long e = ERR_get_error();
	if (e != 0)
		ERR_error_string_n(e, text, sizeof text);
	die("%s: %s", what, text);
}

static unsigned int client_psk(SSL *s, const char *hint, char *identity, unsigned int max_identity,
			       unsigned char *psk, unsigned int max_psk) {
	(void)s, (void)hint;
	if (opt.identity_len + 1 > max_identity || opt.psk_len > max_psk)
		return 0;
	memcpy(identity, opt.identity, opt.identity_len);
	identity[opt.identity_len] = 0;
	memcpy(psk, opt.psk, opt.psk_len);
	return (unsigned int)opt.psk_len;
}

static unsigned int server_psk(SSL *s, const char *identity, unsigned char *psk, unsigned int max_psk) {
	size_t n = strlen(identity);
	(void)s;
	if (n != opt.identity_len || memcmp(identity, opt.identity, n) != 0 || opt.psk_len > max_psk)
		return 0;
	memcpy(session.identity, identity, n);
	session.identity_len = n;
	memcpy(psk, opt.psk, opt.psk_len);
	return (unsigned int)opt.psk_len;
}

static void on_info(const SSL *s, int where, int value) {
	(void)s;
	if (where & SSL_CB_ALERT)
		*(where & SSL_CB_READ ? &alert_received : &alert_sent) = value & 0xff;
}

/* extension_present walks a ServerHello's extensions. */
static int extension_present(const uint8_t *body, size_t len, int wanted) {
	size_t at = 2 + 32;
	if (len < at + 1)
		return 0;
	at += 1 + body[at] + 2 + 1 + 2;
	while (at + 4 <= len) {
		size_t n = (size_t)body[at + 2] << 8 | body[at + 3];
		if ((body[at] << 8 | body[at + 1]) == wanted)
			return 1;
		at += 4 + n;
	}
	return 0;
}

static void on_message(int sent, int version, int type, const void *buf, size_t len, SSL *s, void *arg) {
	const uint8_t *p = buf;
	size_t header = opt.dtls ? 12 : 4;
	(void)sent, (void)version, (void)s, (void)arg;
	if (type == SSL3_RT_HANDSHAKE && len > header && p[0] == SSL3_MT_SERVER_HELLO)
		saw_etm = extension_present(p + header, len - header, TLSEXT_TYPE_encrypt_then_mac);
}

static int new_cookie(SSL *s, unsigned char *cookie, unsigned int *len) {
	(void)s;
	memcpy(cookie, cookie_secret, sizeof cookie_secret);
	*len = sizeof cookie_secret;
	return 1;
}

/* A process serves one address, so its own random octets are cookie enough. */
static int check_cookie(SSL *s, const unsigned char *cookie, unsigned int len) {
	(void)s;
	return len == sizeof cookie_secret && memcmp(cookie, cookie_secret, len) == 0;
}

static int fragment_code(void) {
	switch (opt.fragment) {
	case 512: return TLSEXT_max_fragment_length_512;
	case 1024: return TLSEXT_max_fragment_length_1024;
	case 2048: return TLSEXT_max_fragment_length_2048;
	case 4096: return TLSEXT_max_fragment_length_4096;
	}
	die("OpenSSL has no record limit of %d", opt.fragment);
}

void lib_setup(void) {
	char ciphers[1024] = "";
	ctx = new_ctx();
	for (size_t i = 0; i < opt.suites_len; i++) {
		strcat(ciphers, i ? ":" : "");
		strcat(ciphers, openssl_name(opt.suites[i]->id));
	}
	if (SSL_CTX_set_cipher_list(ctx, ciphers) != 1)
		fail("ciphers");
	if (opt.group != NULL && SSL_CTX_set1_groups_list(ctx, opt.group) != 1)
		fail("groups");
	if (opt.fragment > 0)
		SSL_CTX_set_tlsext_max_fragment_length(ctx, fragment_code());
	if (!opt.ems)
		SSL_CTX_set_options(ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
	if (!opt.etm)
		SSL_CTX_set_options(ctx, SSL_OP_NO_ENCRYPT_THEN_MAC);
	SSL_CTX_set_info_callback(ctx, on_info);
	SSL_CTX_set_msg_callback(ctx, on_message);
	if (opt.server) {
		SSL_CTX_set_psk_server_callback(ctx, server_psk);
		if (opt.hint != NULL)
			SSL_CTX_use_psk_identity_hint(ctx, opt.hint);
		SSL_CTX_set_options(ctx, SSL_OP_COOKIE_EXCHANGE);
		SSL_CTX_set_cookie_generate_cb(ctx, new_cookie);
		SSL_CTX_set_cookie_verify_cb(ctx, check_cookie);
		SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	} else {
		SSL_CTX_set_psk_client_callback(ctx, client_psk);
	}
}

static BIO *new_bio(int fd) {
	BIO *bio;
	if (!opt.dtls)
		return BIO_new_socket(fd, BIO_NOCLOSE);
	BIO_ADDR *peer = BIO_ADDR_new();
	bio = BIO_new_dgram(fd, BIO_NOCLOSE);
	BIO_dgram_get_peer(bio, peer);
	BIO_ctrl(bio, BIO_CTRL_DGRAM_SET_CONNECTED, 0, peer);
	BIO_ADDR_free(peer);
	return bio;
}

void lib_handshake(int fd) {
	RAND_bytes(cookie_secret, sizeof cookie_secret);
	ssl = SSL_new(ctx);
	BIO *bio = new_bio(fd);
	SSL_set_bio(ssl, bio, bio);
	if (opt.sni != NULL)
		SSL_set_tlsext_host_name(ssl, opt.sni);
	if (opt.mtu > 0) {
		SSL_set_options(ssl, SSL_OP_NO_QUERY_MTU);
		if (SSL_set_mtu(ssl, opt.mtu) != opt.mtu)
			die("OpenSSL refuses an MTU of %d", opt.mtu);
	}
	if ((opt.server ? SSL_accept(ssl) : SSL_connect(ssl)) != 1)
		fail("handshake");

	session.suite = (uint16_t)(SSL_CIPHER_get_id(SSL_get_current_cipher(ssl)) & 0xffff);
	session.ems = SSL_get_extms_support(ssl);
	session.etm = saw_etm;
	if (!opt.server) {
		memcpy(session.identity, opt.identity, opt.identity_len);
		session.identity_len = opt.identity_len;
	}
	const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	snprintf(session.sni, sizeof session.sni, "%s", sni ? sni : "");
	SSL_get_client_random(ssl, session.client_random, 32);
	SSL_get_server_random(ssl, session.server_random, 32);
	session.have_randoms = 1;
	if (SSL_export_keying_material(ssl, session.exported, opt.export_len, opt.label, strlen(opt.label), NULL, 0, 0) != 1)
		fail("exporter");
}

ssize_t lib_read(void *buf, size_t len) {
	int n = SSL_read(ssl, buf, (int)len);
	if (n > 0)
		return n;
	int e = SSL_get_error(ssl, n);
	if (e == SSL_ERROR_ZERO_RETURN)
		return 0;
	/* OpenSSL 3 reports an end without close_notify as this error. */
	if (e == SSL_ERROR_SYSCALL || ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return -1;
	fail("read");
	return -1;
}

void lib_write(const void *buf, size_t len) {
	if (SSL_write(ssl, buf, (int)len) != (int)len)
		fail("write");
}

void lib_close(void) {
	SSL_shutdown(ssl);
}
