"""enrichd's API as a function on Vercel; `vercel.json` sends every path here."""

from enrichd.api.asgi import application

# Vercel's proxy sets this header itself, whatever a client sends.
app = application(address_header="x-real-ip")
