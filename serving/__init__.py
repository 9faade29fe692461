"""A page to try voices and an HTTP API, on Starlette and uvicorn. It owns requests, the queue and what browsers get;
its entry is `serving.app.create_app`, which serve.py runs."""
