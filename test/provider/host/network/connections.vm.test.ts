import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

import { describe, expect, it } from "vitest";

import { endConnections } from "../../../../provider/host/network/connections.js";
import { isInNamespace, runInNamespace, whyNoNamespace } from "../../../lab/namespace.js";

const reason = whyNoNamespace();

describe.skipIf(reason !== undefined)(
  `connections with a guest that is no more (${reason ?? "real"})`,
  () => {
    if (!isInNamespace()) {
      it("are ended, in a network namespace", () => {
        expect(runInNamespace("test/provider/host/network/connections.vm.test.ts")).toBe(0);
      });
      return;
    }

    it("are ended, and no others", async () => {
      for (const address of ["10.99.0.2/32", "10.99.0.3/32"])
        execFileSync("ip", ["address", "add", address, "dev", "lo"]);
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      const { port } = server.address() as { port: number };
      const accepted: Socket[] = [];
      server.on("connection", (socket) => accepted.push(socket.on("error", () => {})));
      const connected = async (localAddress: string): Promise<Socket> => {
        const socket = connect({ host: "127.0.0.1", port, localAddress });
        socket.on("error", () => {});
        await once(socket, "connect");
        return socket;
      };
      const guest = await connected("10.99.0.2");
      const other = await connected("10.99.0.3");
      await expect.poll(() => accepted.length).toBe(2);
      expect(await endConnections("10.99.0.2")).toBe(0);
      await expect.poll(() => accepted.filter(({ destroyed }) => destroyed).length).toBe(1);
      expect(other.destroyed).toBe(false);
      expect(await endConnections("10.99.0.9")).toBe(0);
      for (const socket of [guest, other, ...accepted]) socket.destroy();
      server.close();
    });
  },
);
