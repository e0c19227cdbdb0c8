/** A server at a unix socket that gives recorded answers, each to the next request that asks for it. */

import { once } from "node:events";
import { createServer, type Server } from "node:http";

import type { Exchange } from "./record-cloud-hypervisor.js";

/** One answer, to a request of this method and path. */
export type Answer = Omit<Exchange, "body">;

export class StandInVmm {
  /** Requests as they came, with what was sent. */
  readonly requests: { readonly what: string; readonly body: unknown }[] = [];
  readonly #answers: Answer[];

  private constructor(
    answers: readonly Answer[],
    readonly server: Server,
  ) {
    this.#answers = [...answers];
  }

  static async listen(socketPath: string, answers: readonly Answer[]): Promise<StandInVmm> {
    const server = createServer();
    const vmm = new StandInVmm(answers, server);
    server.on("request", (request, response) => {
      let text = "";
      request.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      request.on("end", () => {
        const { status, text: answer } = vmm.#take(request.method ?? "", request.url ?? "", text);
        response.writeHead(status).end(status === 204 ? undefined : answer);
      });
    });
    server.listen(socketPath);
    await once(server, "listening");
    return vmm;
  }

  close(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  #take(method: string, path: string, text: string): { readonly status: number; readonly text: string } {
    this.requests.push({ what: `${method} ${path}`, body: text === "" ? undefined : JSON.parse(text) });
    const index = this.#answers.findIndex((answer) => answer.method === method && answer.path === path);
    const [answer] = index === -1 ? [] : this.#answers.splice(index, 1);
    return answer ?? { status: 418, text: "nothing was recorded for this" };
  }
}
