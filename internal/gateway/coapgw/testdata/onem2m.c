/*
 * Has libcoap's client know the options of a oneM2M response, which are critical: without
 * this it throws the answer away, as RFC 7252 section 5.4.1 says. An AE that is made with
 * libcoap registers them itself. Loaded before the client by LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

void coap_register_option(void *context, uint16_t number);

void *coap_new_context(const void *address)
{
	void *(*next)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "coap_new_context");
	void *context = next(address);

	/* It has room for two numbers above 255. */
	coap_register_option(context, 283); /* oneM2M-RQI */
	coap_register_option(context, 307); /* oneM2M-RSC */
	return context;
}
