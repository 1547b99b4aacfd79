# SPDX-License-Identifier: Apache-2.0
"""Routes, and what answers behind them: (req, res), express, WSGI, ASGI, and event handlers."""

import json
import shutil

from host import wait_for
from neighbour import assert_refused
from wire import Wire, request

# says which function it is, and what it was asked
WHO = """
exports.handler = (req, res) => {
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify([process.env.AWS_LAMBDA_FUNCTION_NAME, req.method, req.url]));
};
"""


def ask(host, path, http_host="h", method="GET"):
    """The name of the function that answers, or the status."""
    answer = host.request(method, path, headers={"Host": http_host})
    if answer.status != 200:
        assert (answer.status, answer.error_type) == (404, "Function.NotFound"), answer
        return 404
    name, seen_method, url = answer.json()
    assert (seen_method, url) == (method, path)
    return name


# ---- routes ----


def test_the_most_specific_route_gets_the_request(host):
    routes = {
        "all-shop": [{"host": "shop.example.org", "path": "/*"}],
        "any-sub": [{"host": "*.example.org", "path": "/*"}, {"host": "*.example.org", "path": "/deep/er"}],
        "exact": [{"path": "/cart"}],
        "below": [{"path": "/cart/*"}],
        "deep": [{"path": "/cart/items/*"}],
        "post": [{"path": "/cart", "method": "POST"}],
        "default": [{"path": "/cart/items/*", "method": "PUT"}, {"path": "/x%20y"}],
    }  # fmt: skip
    for name, its in routes.items():
        host.deploy_node(name, WHO, interface="http", routes=its, concurrency=8)
    expected = [
        ("/cart", "h", "GET", "exact"),
        ("/cart?item=3&x=%2f", "h", "GET", "exact"),
        ("/cart", "h", "POST", "post"),
        ("/cart", "h", "DELETE", "exact"),
        ("/cart/", "h", "GET", "below"),
        ("/cart/a", "h", "GET", "below"),
        ("/cart/a/b/c", "h", "GET", "below"),
        ("/cart/items/7", "h", "GET", "deep"),
        ("/cart/items/7", "h", "PUT", "default"),
        ("/cart/items", "h", "GET", "below"),
        ("/carts", "h", "GET", 404),
        ("/Cart", "h", "GET", 404),
        ("/", "h", "GET", 404),
        ("/x%20y", "h", "GET", "default"),
        ("/cart", "shop.example.org", "GET", "all-shop"),
        ("/cart", "shop.example.org:8080", "POST", "all-shop"),
        ("/cart", "SHOP.Example.ORG", "GET", "all-shop"),
        ("/deep/er", "shop.example.org", "GET", "all-shop"),
        ("/cart/items/7", "a.example.org", "PUT", "any-sub"),
        ("/q", "a.b.example.org", "GET", "any-sub"),
        ("/q", "example.org", "GET", 404),
        ("/cart", "notexample.org", "GET", "exact"),
    ]
    for path, http_host, method, name in expected:
        assert ask(host, path, http_host, method) == name, (path, http_host, method)


def test_routes_follow_the_live_version_and_go_with_the_function(host):
    host.deploy_node("web", WHO, interface="http", routes=[{"path": "/one"}])
    assert ask(host, "/one") == "web" and ask(host, "/two") == 404
    host.deploy_node("web", WHO, interface="http", routes=[{"path": "/two"}])
    assert ask(host, "/two") == "web" and ask(host, "/one") == 404
    assert host.invoke("web:1").status == 200  # the old one, by its name only
    host.nestctl("rm", "web")
    assert ask(host, "/two") == 404


def test_of_two_functions_with_one_route_the_one_named_first_has_it(host):
    """Whichever was deployed first."""
    for name in ("middle", "zebra", "apple"):
        host.deploy_node(name, WHO, interface="http", routes=[{"path": "/same"}])
    assert {ask(host, "/same") for _ in range(20)} == {"apple"}
    host.nestctl("rm", "apple")
    assert ask(host, "/same") == "middle"


def test_no_route_is_404_and_names_no_function(host):
    answer = host.request("GET", "/nothing", headers={"X-Request-Id": "r-1"})
    body = assert_refused(answer, 404, "Function.NotFound")
    assert body["version"] is None and body["requestId"] == "r-1"


# ---- what an HTTP function sees and says ----


def test_headers_pass_both_ways_but_for_those_of_the_hop(host):
    host.deploy_node(
        "web",
        "exports.handler = (req, res) => { res.statusCode = 418; res.statusMessage = 'Teapot';"
        " res.setHeader('set-cookie', ['a=1; Path=/', 'b=2']); res.setHeader('x-raw', 'y');"
        " res.setHeader('x-request-id', 'forged'); res.setHeader('connection', 'x-raw2');"
        " res.end(JSON.stringify([req.rawHeaders, req.httpVersion])); };",
        interface="http",
        routes=[{"path": "/web"}],
    )
    with Wire(host.gateway_socket) as wire:
        wire.send(
            request(
                "GET",
                "/web",
                None,
                "Cookie: s=1",
                "X-Many: 1",
                "X-Many: 2",
                "Connection: keep-alive, X-Hop",
                "X-Hop: 1",
                "Keep-Alive: timeout=5",
                "TE: trailers",
                "Proxy-Authorization: none",
                "Upgrade: h2c",
                "X-Forwarded-For: 10.0.0.1",
                "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "X-Request-Id: web-1",
            )
        )
        response = wire.response()
        raw, version = response.json()
        pairs = list(zip(raw[::2], raw[1::2]))
        names = [name for name, _ in pairs]
        assert [v for n, v in pairs if n == "x-many"] == ["1", "2"]
        assert ("cookie", "s=1") in pairs and ("x-forwarded-for", "10.0.0.1") in pairs
        assert ("x-request-id", "web-1") in pairs and "traceparent" in names and "host" in names
        hop = {"connection", "x-hop", "keep-alive", "te", "proxy-authorization", "upgrade"}
        assert not hop & set(names), names
        assert version == "1.1"
        assert response.status == 418 and response.head.all("set-cookie") == ["a=1; Path=/", "b=2"]
        assert response.head.get("x-raw") == "y" and response.head.get("x-request-id") == "web-1"
        assert response.head.get("connection") is None


def test_status_codes_and_bodies_that_have_none(host):
    host.deploy_node(
        "codes",
        "exports.handler = (req, res) => { res.statusCode = Number(req.url.slice(7)); res.end(); };",
        interface="http",
        routes=[{"path": "/codes/*"}],
    )
    with Wire(host.gateway_socket) as wire:
        for code in (200, 201, 204, 206, 301, 304, 400, 404, 429, 500, 503, 599):
            wire.send(request("GET", f"/codes/{code}", None))
            response = wire.response()
            assert (response.status, response.body) == (code, b"")
            assert response.head.get("x-amz-function-error") is None


def test_an_express_application_with_cookies_and_json(host, example):
    directory = host.root / "shop"
    shutil.copytree(example("express-app"), directory)
    (directory / "index.js").write_text(
        "const express = require('express'); const app = express();\n"
        "app.use(express.json()); app.use(express.urlencoded({ extended: false }));\n"
        "app.get('/shop/item/:id', (q, r) => r.cookie('seen', q.params.id, { httpOnly: true })\n"
        "  .cookie('b', '2').json({ id: q.params.id, query: q.query, cookie: q.headers.cookie, ip: q.ip }));\n"
        "app.post('/shop/item', (q, r) => r.status(201).location('/shop/item/9').json(q.body));\n"
        "app.get('/shop/redirect', (q, r) => r.redirect(302, '/shop/item/1'));\n"
        "app.get('/shop/boom', () => { throw new Error('inside'); });\n"
        "app.get('/shop/sendfile', (q, r) => r.sendFile('/function/package.json'));\n"
        "exports.handler = app;\n"
    )
    spec = json.loads((directory / "nestlet.json").read_text())
    spec.update(name="shop", routes=[{"path": "/shop/*"}])
    (directory / "nestlet.json").write_text(json.dumps(spec))
    host.nestctl("deploy", str(directory))
    with Wire(host.gateway_socket) as wire:
        wire.send(request("GET", "/shop/item/7?a=1&b=%C3%A4", None, "cookie: s=1"))
        response = wire.response()
        assert response.status == 200, response
        seen = response.json()
        assert (seen["id"], seen["query"], seen["cookie"]) == ("7", {"a": "1", "b": "ä"}, "s=1")
        assert response.head.all("set-cookie") == ["seen=7; Path=/; HttpOnly", "b=2; Path=/"]
        etag = response.head.get("etag")
        wire.send(request("GET", "/shop/item/7?a=1&b=%C3%A4", None, "cookie: s=1", f"if-none-match: {etag}"))
        assert wire.response().status == 304
        wire.send(request("POST", "/shop/item", b'{"n":1}', "content-type: application/json"))
        response = wire.response()
        assert (response.status, response.json()) == (201, {"n": 1})
        assert response.head.get("location") == "/shop/item/9"
        wire.send(request("POST", "/shop/item", b"n=1", "content-type: application/x-www-form-urlencoded"))
        assert wire.response().json() == {"n": "1"}
        wire.send(request("GET", "/shop/redirect", None))
        response = wire.response()
        assert (response.status, response.head.get("location")) == (302, "/shop/item/1")
        wire.send(request("GET", "/shop/none", None))
        response = wire.response()
        assert response.status == 404 and b"Cannot GET /shop/none" in response.body
        wire.send(request("GET", "/shop/boom", None))
        assert wire.response().status == 500
        wire.send(request("GET", "/shop/sendfile", None))
        assert b'"dependencies"' in wire.response().body


def test_a_wsgi_application_gets_its_environ_and_streams(host):
    host.deploy_python(
        "wsgi",
        "import json\n"
        "def handler(environ, start_response):\n"
        "    body = environ['wsgi.input'].read()\n"
        "    keys = ['REQUEST_METHOD', 'SCRIPT_NAME', 'PATH_INFO', 'QUERY_STRING', 'CONTENT_TYPE',\n"
        "            'CONTENT_LENGTH', 'HTTP_X_A', 'SERVER_PROTOCOL', 'wsgi.url_scheme', 'HTTP_COOKIE']\n"
        "    seen = {k: environ.get(k) for k in keys}\n"
        "    seen.update(body=body.decode(), id=environ['nestlet.context'].aws_request_id)\n"
        "    start_response('201 Made', [('Content-Type', 'application/json'),\n"
        "        ('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2')])\n"
        "    text = json.dumps(seen).encode()\n"
        "    yield text[:10]\n    yield b''\n    yield text[10:]\n",
        interface="wsgi",
        routes=[{"path": "/wsgi/*"}],
    )
    with Wire(host.gateway_socket) as wire:
        wire.send(
            request("POST", "/wsgi/a%20b?x=1", b"hello", "content-type: text/plain", "x-a: 1",
                    "x-request-id: ws-1", "cookie: c=1")
        )  # fmt: skip
        response = wire.response()
        assert response.status == 201 and response.head.all("set-cookie") == ["a=1", "b=2"]
        assert response.json() == {
            "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/wsgi/a b",
            "QUERY_STRING": "x=1", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "5",
            "HTTP_X_A": "1", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
            "HTTP_COOKIE": "c=1", "body": "hello", "id": "ws-1",
        }  # fmt: skip


def test_an_asgi_application_gets_scope_lifespan_and_body(host):
    host.deploy_python(
        "asgi",
        "import json\n"
        "started = []\n"
        "async def handler(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n        started.append(1)\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n        print('shut down')\n"
        "        await send({'type': 'lifespan.shutdown.complete'})\n        return\n"
        "    body, more = b'', True\n"
        "    while more:\n"
        "        message = await receive()\n"
        "        body += message.get('body', b'')\n        more = message.get('more_body', False)\n"
        "    seen = [scope['type'], scope['method'], scope['path'], scope['raw_path'].decode(),\n"
        "            scope['query_string'].decode(), dict(scope['headers'])[b'x-a'].decode(),\n"
        "            body.decode(), len(started)]\n"
        "    await send({'type': 'http.response.start', 'status': 202,\n"
        "                'headers': [(b'content-type', b'application/json'), (b'set-cookie', b'a=1')]})\n"
        "    await send({'type': 'http.response.body', 'body': json.dumps(seen).encode()})\n",
        interface="asgi",
        routes=[{"path": "/asgi/*"}],
        concurrency=8,
    )
    with Wire(host.gateway_socket) as wire:
        for _ in range(3):
            wire.send(request("PUT", "/asgi/%C3%A4?q=1", b"hello", "x-a: 1"))
            response = wire.response()
            assert (response.status, response.head.get("set-cookie")) == (202, "a=1")
            assert response.json() == ["http", "PUT", "/asgi/ä", "/asgi/%C3%A4", "q=1", "1", "hello", 1]
    [worker] = host.function("asgi")["workers"]
    host.nestctl("rm", "asgi", "--version", "1")
    wait_for(lambda: worker["id"] not in [w["id"] for w in host.workers()], "it shuts down")


# ---- event handlers behind routes ----

EVENT_NODE = """
exports.handler = async (event) => {
    if (event.rawPath === '/ev/plain') return { any: 'value' };
    if (event.rawPath === '/ev/bytes') return { statusCode: 200, isBase64Encoded: true,
        headers: { 'content-type': 'image/png' }, body: Buffer.from([0, 255, 7]).toString('base64') };
    return { statusCode: 207, headers: { 'X-One': '1' }, multiValueHeaders: { 'x-many': ['a', 'b'] },
        cookies: ['c=1; Path=/', 'd=2'], body: JSON.stringify(event) };
};
"""
EVENT_PYTHON = """
import base64, json
def handler(event, context):
    if event["rawPath"] == "/ev/plain":
        return {"any": "value"}
    if event["rawPath"] == "/ev/bytes":
        return {"statusCode": 200, "isBase64Encoded": True, "headers": {"content-type": "image/png"},
                "body": base64.b64encode(bytes([0, 255, 7])).decode()}
    return {"statusCode": 207, "headers": {"X-One": "1"}, "multiValueHeaders": {"x-many": ["a", "b"]},
            "cookies": ["c=1; Path=/", "d=2"], "body": json.dumps(event)}
"""


def test_an_event_handler_behind_a_route_speaks_api_gateways_format_2(host):
    for language in ("node", "python"):
        deploy = host.deploy_node if language == "node" else host.deploy_python
        source = EVENT_NODE if language == "node" else EVENT_PYTHON
        deploy("ev", source, routes=[{"path": "/ev/*"}])
        with Wire(host.gateway_socket) as wire:
            wire.send(
                request("POST", "/ev/a%20b?x=1&x=2&y=", b'{"k":1}', "content-type: application/json",
                        "cookie: s=1; t=2", "x-a: 1", "x-a: 2", "user-agent: me", "x-request-id: ev-1",
                        "x-forwarded-for: 10.1.2.3")
            )  # fmt: skip
            response = wire.response()
            assert response.status == 207, response
            assert response.head.get("x-one") == "1" and response.head.all("x-many") == ["a", "b"]
            assert response.head.all("set-cookie") == ["c=1; Path=/", "d=2"]
            event = response.json()
            assert event["version"] == "2.0" and event["routeKey"] == "$default"
            assert (event["rawPath"], event["rawQueryString"]) == ("/ev/a%20b", "x=1&x=2&y=")
            assert event["queryStringParameters"] == {"x": "1,2", "y": ""}
            assert event["cookies"] == ["s=1", "t=2"] and event["headers"]["x-a"] == "1,2"
            assert (event["body"], event["isBase64Encoded"]) == ('{"k":1}', False)
            context = event["requestContext"]
            http = dict(method="POST", path="/ev/a%20b", protocol="HTTP/1.1", sourceIp="10.1.2.3", userAgent="me")
            assert {k: context["http"][k] for k in http} == http
            assert (context["requestId"], context["stage"]) == ("ev-1", "$default")
            wire.send(request("POST", "/ev/x", b"\0\xff", "content-type: application/octet-stream"))
            event = wire.response().json()
            assert (event["body"], event["isBase64Encoded"]) == ("AP8=", True)
            wire.send(request("GET", "/ev/plain", None) + request("GET", "/ev/bytes", None))
            plain, data = wire.response(), wire.response()
            assert (plain.status, plain.json()) == (200, {"any": "value"})
            assert plain.head.get("content-type") == "application/json"
            assert (data.body, data.head.get("content-type")) == (bytes([0, 255, 7]), "image/png")
