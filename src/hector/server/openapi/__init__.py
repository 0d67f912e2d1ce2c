"""The OpenAPI document of what is served over HTTP, made from the routes and from A2A's own types."""
