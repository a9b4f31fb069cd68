/* Makes openssl.json: sessions of OpenSSL with itself, and the values that libssl computes in
 * them, one JSON object a line. Each session has other randoms, so the file changes as a whole:
 *
 *	cc -Wall -o /tmp/answers openssl.c -lssl -lcrypto && /tmp/answers >openssl.json
 *
 * "client" and "server" are all octets that each side sends; "transcript" is the handshake
 * messages before the client's Finished, as they are hashed. */
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char label[] = "EXPORTER-oneM2M-Connection";
static const char identity[] = "meter7@maf.example.com";
static const unsigned char psk[] = "0123456789abcdef0123456789abcdef";

/* Octets that accumulate. */
struct log {
	unsigned char data[1 << 16];
	size_t len;
};
static struct log transcript, sent_by_client, sent_by_server;

static void must(int ok, const char *what) {
	if (!ok) {
		fprintf(stderr, "%s failed\n", what);
		exit(1);
	}
}

static void add(struct log *l, const void *data, size_t len) {
	must(l->len + len <= sizeof l->data, "log");
	memcpy(l->data + l->len, data, len);
	l->len += len;
}

static unsigned int client_psk(SSL *s, const char *hint, char *id, unsigned int id_max, unsigned char *key, unsigned int key_max) {
	(void)s, (void)hint, (void)id_max, (void)key_max;
	strcpy(id, identity);
	memcpy(key, psk, sizeof psk - 1);
	return sizeof psk - 1;
}

static unsigned int server_psk(SSL *s, const char *id, unsigned char *key, unsigned int key_max) {
	(void)s, (void)id, (void)key_max;
	memcpy(key, psk, sizeof psk - 1);
	return sizeof psk - 1;
}

/* on_message is called for the client's messages, both ways. */
static void on_message(int sent, int version, int type, const void *buf, size_t len, SSL *s, void *arg) {
	(void)sent, (void)version, (void)s, (void)arg;
	if (type == SSL3_RT_HANDSHAKE && *(const unsigned char *)buf != SSL3_MT_FINISHED)
		add(&transcript, buf, len);
}

/* carry takes what one side has written to the other. */
static void carry(SSL *from, SSL *to, struct log *l) {
	unsigned char buf[1 << 15];
	int n;
	while ((n = BIO_read(SSL_get_wbio(from), buf, sizeof buf)) > 0) {
		add(l, buf, n);
		must(BIO_write(SSL_get_rbio(to), buf, n) == n, "carry");
	}
}

static void say(SSL *from, SSL *to, struct log *l, int len) {
	unsigned char out[256], in[256];
	for (int i = 0; i < len; i++)
		out[i] = (unsigned char)i;
	must(SSL_write(from, out, len) == len, "SSL_write");
	carry(from, to, l);
	must(SSL_read(to, in, sizeof in) == len && memcmp(in, out, len) == 0, "SSL_read");
}

static SSL *new_side(int dtls, const char *cipher, int ems, int etm, int server) {
	SSL_CTX *ctx = SSL_CTX_new(dtls ? DTLS_method() : TLS_method());
	SSL_CTX_set_max_proto_version(ctx, dtls ? DTLS1_2_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_security_level(ctx, 0); /* for CCM_8 */
	must(SSL_CTX_set_cipher_list(ctx, cipher), cipher);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_QUERY_MTU | (ems ? 0 : SSL_OP_NO_EXTENDED_MASTER_SECRET) | (etm ? 0 : SSL_OP_NO_ENCRYPT_THEN_MAC));
	if (server)
		SSL_CTX_set_psk_server_callback(ctx, server_psk);
	else
		SSL_CTX_set_psk_client_callback(ctx, client_psk);
	SSL *s = SSL_new(ctx);
	SSL_CTX_free(ctx);
	if (dtls)
		SSL_set_mtu(s, 1400);
	if (!server)
		SSL_set_msg_callback(s, on_message);
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(in, -1);
	BIO_set_mem_eof_return(out, -1);
	SSL_set_bio(s, in, out);
	if (server)
		SSL_set_accept_state(s);
	else
		SSL_set_connect_state(s);
	return s;
}

static void print_hex(const char *name, const void *data, size_t len) {
	printf(", \"%s\": \"", name);
	for (size_t i = 0; i < len; i++)
		printf("%02x", ((const unsigned char *)data)[i]);
	printf("\"");
}

static void print_export(SSL *s, const char *name, const char *context) {
	unsigned char out[48];
	must(SSL_export_keying_material(s, out, sizeof out, label, strlen(label), (const unsigned char *)context,
					context ? strlen(context) : 0, context != NULL), "exporter");
	print_hex(name, out, sizeof out);
}

static void session(int dtls, const char *cipher, int ems, int etm) {
	SSL *client = new_side(dtls, cipher, ems, etm, 0), *server = new_side(dtls, cipher, ems, etm, 1);
	unsigned char buf[64];
	transcript.len = sent_by_client.len = sent_by_server.len = 0;
	while (!SSL_is_init_finished(client) || !SSL_is_init_finished(server)) {
		SSL_do_handshake(client);
		carry(client, server, &sent_by_client);
		SSL_do_handshake(server);
		carry(server, client, &sent_by_server);
	}
	must(SSL_get_extms_support(client) == ems, "extended master secret as wanted");
	static const int lengths[] = {1, 15, 16, 47, 48};
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		say(client, server, &sent_by_client, lengths[i]);
		say(server, client, &sent_by_server, 2 * lengths[i]);
	}
	SSL_shutdown(client);
	carry(client, server, &sent_by_client);
	SSL_shutdown(server);
	carry(server, client, &sent_by_server);

	printf("{\"suite\": %u, \"dtls\": %s, \"ems\": %s, \"etm\": %s", (unsigned)(SSL_CIPHER_get_id(SSL_get_current_cipher(client)) & 0xffff),
	       dtls ? "true" : "false", ems ? "true" : "false", etm ? "true" : "false");
	print_hex("psk", psk, sizeof psk - 1);
	print_hex("clientRandom", buf, SSL_get_client_random(client, buf, sizeof buf));
	print_hex("serverRandom", buf, SSL_get_server_random(client, buf, sizeof buf));
	print_hex("transcript", transcript.data, transcript.len);
	print_hex("master", buf, SSL_SESSION_get_master_key(SSL_get_session(client), buf, sizeof buf));
	print_hex("clientFinished", buf, SSL_get_finished(client, buf, sizeof buf));
	print_hex("serverFinished", buf, SSL_get_finished(server, buf, sizeof buf));
	print_export(client, "export", NULL);
	print_export(client, "exportEmptyContext", "");
	print_export(client, "exportContext", "context");
	print_hex("client", sent_by_client.data, sent_by_client.len);
	print_hex("server", sent_by_server.data, sent_by_server.len);
	printf("}\n");
	SSL_free(client);
	SSL_free(server);
}

int main(void) {
	for (int dtls = 0; dtls <= 1; dtls++) {
		session(dtls, "PSK-AES128-CBC-SHA256", 0, 0);
		session(dtls, "PSK-AES128-CBC-SHA256", 1, 0);
		session(dtls, "PSK-AES128-CBC-SHA256", 1, 1);
		session(dtls, "PSK-AES128-CCM8", 1, 0);
		session(dtls, "PSK-AES128-CCM", 1, 0);
		session(dtls, "PSK-AES128-GCM-SHA256", 1, 0);
		session(dtls, "PSK-AES256-GCM-SHA384", 0, 0);
		session(dtls, "PSK-AES256-GCM-SHA384", 1, 0);
		session(dtls, "PSK-CHACHA20-POLY1305", 1, 0);
	}
	return 0;
}
