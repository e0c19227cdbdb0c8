/** A server that answers what a real Arrakis was recorded to answer (test/lab/record-arrakis.ts), with as many VMs as it is asked for. */

import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

import type { Answer } from "../../../lab/record-arrakis.js";

type State = "RUNNING" | "PAUSED" | "STOPPED";

/** One request that came. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>> | undefined;
  readonly authorization: string | undefined;
}

/** What the server is to be. */
export interface StandInOptions {
  /** Which recording: `release-8` knows NFS roots only, `upstream` none. */
  readonly recording?: "release-8" | "upstream";
  /** Without it, 401. */
  readonly token?: string;
  /** A server of this project: what it says it can do. */
  readonly features?: readonly string[];
  /** Key and certificate in PEM form, for TLS. */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** Path of a unix socket to listen at, instead of a port of 127.0.0.1. */
  readonly socketPath?: string;
}

export const NFS_MOUNTS =
  "rootfs / rootfs rw 0 0\n" +
  "10.20.1.1:/srv/root / nfs rw,relatime,vers=3,rsize=4096,proto=tcp,port=11111,mountport=11111,local_lock=all,addr=10.20.1.1 0 0\n" +
  "proc /proc proc rw 0 0\n";

export class StandIn {
  /** Every request, in order. */
  readonly asked: Asked[] = [];
  readonly vms = new Map<string, State>();
  /** What `cat /proc/mounts` prints in every guest; undefined: no guest answers. */
  mounts: string | undefined = NFS_MOUNTS;
  /** Called with each request before it is answered; `"reset"` ends the connection instead, once what was asked for is done. */
  before: (asked: Asked) => Promise<"reset" | void> | "reset" | void = () => undefined;
  /** What a server of this project would boot. */
  dryRun: (body: Readonly<Record<string, unknown>>) => Answer = ({ vmName }) => ({
    status: 200,
    body: { vmName, cmdline: "console=ttyS0 root=/dev/nfs", disks: [] },
  });
  /** Whether a start is answered with a failure, that leaves a VM in the list all the same. */
  failsStart = false;
  /** What a server of this project says of each VM. */
  ofEach: Readonly<Record<string, unknown>> = {};

  private constructor(
    readonly server: Server,
    readonly options: StandInOptions,
    readonly answers: Readonly<Record<string, Answer>>,
  ) {}

  static async open(options: StandInOptions = {}): Promise<StandIn> {
    const file = join(__dirname, "recorded", `${options.recording ?? "release-8"}.json`);
    const answers = JSON.parse(readFileSync(file, "utf8")) as Record<string, Answer>;
    const { tls } = options;
    const server = tls === undefined ? createServer() : createTlsServer(tls);
    const standIn = new StandIn(server, options, answers);
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      void standIn.#serve(request, response);
    });
    await new Promise<void>((resolve) => {
      if (options.socketPath === undefined) server.listen(0, "127.0.0.1", resolve);
      else server.listen(options.socketPath, resolve);
    });
    return standIn;
  }

  get url(): string {
    const { socketPath, tls } = this.options;
    if (socketPath !== undefined) return `unix://${socketPath}`;
    const { port } = this.server.address() as AddressInfo;
    return tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`;
  }

  /** Requests in short: `POST /vms`. */
  get done(): string[] {
    return this.asked.map(({ method, path }) => `${method} ${path.replace("/v1", "")}`);
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => {
      this.server.close(resolve);
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const { method = "", url: path = "" } = request;
    const { authorization } = request.headers;
    const body = text === "" ? undefined : (JSON.parse(text) as Asked["body"]);
    const asked = { method, path, body, authorization };
    this.asked.push(asked);
    const answer = this.#answer(asked);
    if ((await this.before(asked)) === "reset") {
      request.socket.destroy();
      return;
    }
    response.writeHead(answer.status, { "content-type": "application/json" });
    response.end(JSON.stringify(answer.body));
  }

  #answer(asked: Asked): Answer {
    const { token } = this.options;
    if (token !== undefined && asked.authorization !== `Bearer ${token}`) {
      return { status: 401, body: { error: { message: `wrong token ${asked.authorization}` } } };
    }
    const [, name, part] = /^\/v1\/vms\/([^/?]+)(\/\w+)?/.exec(asked.path) ?? [];
    if (name !== undefined) return this.#ofVm(asked, name, part);
    if (asked.path === "/v1/health") return this.#health();
    if (asked.path === "/v1/vms?dryRun=true") return this.dryRun(asked.body ?? {});
    if (asked.path === "/v1/vms") return asked.method === "GET" ? this.#list() : this.#start(asked);
    return { status: 404, body: { error: { message: "no such route" } } };
  }

  #health(): Answer {
    const { features } = this.options;
    const { status, body } = this.recorded("health");
    return { status, body: features === undefined ? body : { ...(body as object), features } };
  }

  #list(): Answer {
    if (this.vms.size === 0) return this.recorded("empty list");
    const { status, body } = this.recorded("running");
    const [sample] = (body as { vms: object[] }).vms;
    const vms = [...this.vms].map(([vmName, state]) => ({
      ...sample,
      vmName,
      status: state,
      ...this.ofEach,
    }));
    return { status, body: { vms } };
  }

  #start({ body }: Asked): Answer {
    const vmName = body?.["vmName"];
    if (typeof vmName !== "string" || vmName === "") return this.recorded("start without a name");
    const state = this.vms.get(vmName);
    if (state === "RUNNING" && this.options.features === undefined)
      return this.recorded("start of one that runs");
    this.vms.set(vmName, "RUNNING");
    if (this.failsStart) return this.recorded("failed start", vmName);
    const { status, body: sample } = this.recorded(state === undefined ? "start" : "start again");
    return { status, body: { ...(sample as object), vmName, ...this.ofEach } };
  }

  #ofVm({ method, body }: Asked, name: string, part: string | undefined): Answer {
    const state = this.vms.get(name);
    switch (`${method} ${part ?? ""}`) {
      case "DELETE ":
        return this.recorded(this.vms.delete(name) ? "destroy" : "unknown: destroy", name);
      case "PATCH ":
        return this.#change(name, state, body?.["status"]);
      case "POST /cmd":
        return this.#command(state, String(body?.["cmd"]));
      case "POST /files":
        return this.recorded("upload");
      case "GET /files":
        return this.recorded("download");
      case "POST /snapshots":
        return { status: 200, body: { snapshotId: body?.["snapshotId"] } };
      default:
        return this.recorded("unknown: get", name);
    }
  }

  #change(name: string, state: State | undefined, status: unknown): Answer {
    if (state === undefined) return this.recorded("unknown: pause", name);
    const isOurs = this.options.features !== undefined;
    switch (status) {
      case "paused":
        this.vms.set(name, "PAUSED");
        return this.recorded("pause");
      case "stopped":
        this.vms.set(name, "STOPPED");
        return this.recorded("stop");
      case "resume":
        if (state === "STOPPED" && !isOurs) return this.recorded("resume of one that is off");
        this.vms.set(name, "RUNNING");
        return this.recorded("resume");
      default:
        return this.recorded("no status");
    }
  }

  #command(state: State | undefined, cmd: string): Answer {
    if (state === undefined) return this.recorded("unknown: command");
    if (this.mounts === undefined) return this.recorded("silent guest");
    if (cmd !== "cat /proc/mounts") return this.recorded("failed command");
    const { status, body } = this.recorded("mounts");
    return { status, body: { ...(body as object), output: this.mounts } };
  }

  /** A recorded answer, for another VM than the one that was recorded. */
  recorded(what: string, vmName = "web"): Answer {
    const answer = this.answers[what];
    if (answer === undefined) throw new Error(`nothing was recorded for: ${what}`);
    return JSON.parse(JSON.stringify(answer).replaceAll("vm web not", `vm ${vmName} not`)) as Answer;
  }
}
