"""The HTTP API without a transport: aiohttp serves it in the gateway, ASGI on serverless hosts."""
