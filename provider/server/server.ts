/** The HTTP side of the server: limits, who may ask, schemas, errors. */

import Fastify, {
  LogController,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from "fastify";
import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { valueAt } from "../spec/validate.js";
import { type Access, admit } from "./access.js";
import { parse } from "./parse.js";
import { errorBody, Refusal, refusalOf, STOPPING } from "./refusal.js";
import { type Call, Content, type Route, type Served } from "./route.js";

/** Bounds of what callers can take. */
export interface Limits {
  /** How long the headers of a request may take to arrive, in milliseconds. */
  readonly headersMilliseconds: number;
  /** How long all of a request may take to arrive, in milliseconds. */
  readonly requestMilliseconds: number;
  /** How long a connection is kept without a request, and with an answer of which its caller takes nothing, in milliseconds. */
  readonly idleMilliseconds: number;
  /** Largest body of a request whose route names no other, in bytes. */
  readonly bodyBytes: number;
  /** How many connections there may be at a time. */
  readonly connections: number;
}

export const defaultLimits: Limits = {
  headersMilliseconds: 10_000,
  requestMilliseconds: 30_000,
  idleMilliseconds: 30_000,
  bodyBytes: 64 * 1024,
  connections: 1024,
};

/** What the HTTP side is made from. */
export interface ServerOptions {
  readonly served: Served;
  readonly routes: readonly Route[];
  readonly access: Access;
  /** Certificate and key, in PEM; absent for plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Where the log goes, as lines of JSON; absent for none. */
  readonly log?: { write(line: string): void };
  readonly limits?: Limits;
}

/** The server, not yet listening. */
export function buildServer(options: ServerOptions): FastifyInstance {
  const { served, routes, access, log, limits = defaultLimits } = options;
  const app = Fastify({
    serverFactory: (listener) => serverOf(options.tls, limits, listener),
    logger:
      log === undefined ? false : { stream: log, timestamp: () => `,"time":"${new Date().toISOString()}"` },
    // In its place: one line for each request, without what the query holds.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: limits.bodyBytes,
    // As below, and with the API's own body.
    return503OnClosing: false,
    forceCloseConnections: "idle",
    routerOptions: { maxParamLength: 255, caseSensitive: true },
    // A path that cannot be read, as /%zz.
    frameworkErrors: (error, _request, reply) => void send(reply, refusalOf(error)),
  });
  acceptJsonAlone(app);
  app.setErrorHandler((error, request, reply) => {
    const refusal = refusalOf(error);
    if (refusal.statusCode >= 500) request.log.error({ err: refusal.cause ?? refusal }, "failed");
    return send(reply, refusal);
  });
  let isClosing = false;
  app.addHook("preClose", (done) => {
    isClosing = true;
    done();
  });
  const open = new Set(routes.filter((route) => route.open === true).map(({ path }) => path));
  app.addHook("onRequest", (request, reply, done) => {
    reply.header("x-content-type-options", "nosniff");
    reply.header("cache-control", "no-store");
    try {
      if (isClosing) throw new Refusal(503, STOPPING, "interrupted");
      admit(request.headers, access, open.has(pathOf(request.url)));
      refuseRareMethod(request.method, reply);
      done();
    } catch (error) {
      done(error as Refusal);
    }
  });
  // While a VM is made nothing moves either, so the time counts from the answer. Node sets it anew when that has gone out.
  app.addHook("onSend", (request, _reply, payload, done) => {
    request.raw.socket.setTimeout(limits.idleMilliseconds);
    done(null, payload);
  });
  app.addHook("onResponse", (request, reply, done) => {
    const { method, url, ip: caller } = request;
    const answered = { method, path: pathOf(url), status: reply.statusCode, caller };
    // A page that looks every second would fill the log.
    const isLook = method === "GET" && reply.statusCode < 400;
    request.log[isLook ? "debug" : "info"]({ ...answered, ms: Math.round(reply.elapsedTime) }, "answered");
    done();
  });
  app.setNotFoundHandler((request, reply) =>
    send(reply, new Refusal(404, `there is no route ${pathOf(request.url)}; see /openapi.yaml`)),
  );
  for (const route of routes) addRoute(app, route, served);
  refuseOtherMethods(app, routes);
  return app;
}

function serverOf(tls: ServerOptions["tls"], limits: Limits, listener: RequestListener): Server {
  const settings = {
    headersTimeout: limits.headersMilliseconds,
    requestTimeout: limits.requestMilliseconds,
    keepAliveTimeout: limits.idleMilliseconds,
    // How often Node looks for requests that take too long.
    connectionsCheckingInterval: Math.min(1000, limits.headersMilliseconds),
    maxHeaderSize: 16 * 1024,
  };
  const server =
    tls === undefined
      ? createHttpServer(settings, listener)
      : createTlsServer({ ...settings, ...tls, minVersion: "TLSv1.2" }, listener);
  server.maxConnections = limits.connections;
  return server;
}

/** Other types a browser sends for any page without asking first. */
function acceptJsonAlone(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    // Some clients name the type of a body that they do not send.
    if (body === "") done(null, undefined);
    else void parseJson(request, body as string, done);
  });
}

function addRoute(app: FastifyInstance, route: Route, served: Served): void {
  app.route({
    method: route.method,
    url: route.path.replaceAll(/\{(\w+)\}/g, ":$1"),
    bodyLimit: route.bodyLimit,
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      const answer = await route.answer(served, callOf(route, request));
      if (!(answer instanceof Content)) return reply.send(answer);
      return reply.headers(answer.headers).type(answer.type).send(answer.text);
    },
  });
}

function callOf(route: Route, request: FastifyRequest): Call {
  return {
    name: valueAt(request.params, ["name"]) as string,
    body: route.body === undefined ? undefined : parse(route.body, request.body, "the body"),
    query: route.query === undefined ? undefined : parse(route.query, request.query, "the query"),
    tell: (what) => request.log.info({ caller: request.ip }, what),
  };
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const;

/** TRACE, QUERY and the like: no route is for them. */
function refuseRareMethod(method: string, reply: FastifyReply): void {
  if (METHODS.some((name) => name === method)) return;
  void reply.header("allow", METHODS.join(", "));
  throw new Refusal(405, `${method} is not for this server; expected ${METHODS.join(" or ")}`);
}

/** A path that is there, asked in a way that it is not for; a browser's question whether another site may (OPTIONS) among them. */
function refuseOtherMethods(app: FastifyInstance, routes: readonly Route[]): void {
  for (const path of new Set(routes.map((route) => route.path))) {
    const allowed: readonly string[] = routes
      .filter((route) => route.path === path)
      .map(({ method }) => method);
    app.route({
      method: METHODS.filter((method) => !allowed.includes(method)),
      url: path.replaceAll(/\{(\w+)\}/g, ":$1"),
      handler: (request, reply) =>
        send(
          reply.header("allow", allowed.join(", ")),
          new Refusal(405, `${request.method} is not for ${path}; expected ${allowed.join(" or ")}`),
        ),
    });
  }
}

function send(reply: FastifyReply, refusal: Refusal): FastifyReply {
  if (refusal.statusCode === 401) void reply.header("www-authenticate", "Bearer");
  return reply.code(refusal.statusCode).send(errorBody(refusal));
}

function pathOf(url: string): string {
  return url.split("?", 1)[0] ?? url;
}
