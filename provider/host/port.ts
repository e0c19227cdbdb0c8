/** Whether a port of this host can be listened on: asked by listening on it, for a moment. */

import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";

import { MicroVmError, messageOf, systemCodeOf } from "../errors.js";

/**
 * Makes sure that a port is free.
 *
 * @param address IPv4 address of an interface of this host, or `0.0.0.0`.
 * @throws MicroVmError `port-taken` when something listens there; `host-unusable` when this user may not, or no
 * interface has the address.
 */
export async function assertPortFree(protocol: "tcp" | "udp", address: string, port: number): Promise<void> {
  try {
    await (protocol === "tcp" ? listenTcp(address, port) : listenUdp(address, port));
  } catch (error) {
    throw portError(error, `${port}/${protocol} of ${address}`);
  }
}

async function listenTcp(host: string, port: number): Promise<void> {
  const server = createServer();
  server.listen({ host, port, exclusive: true });
  await once(server, "listening");
  server.close();
  await once(server, "close");
}

async function listenUdp(address: string, port: number): Promise<void> {
  const socket = createSocket("udp4");
  socket.bind({ address, port, exclusive: true });
  await once(socket, "listening");
  socket.close();
  await once(socket, "close");
}

function portError(error: unknown, port: string): MicroVmError {
  const details = { input: "portForwards", cause: error };
  switch (systemCodeOf(error)) {
    case "EADDRINUSE":
      return new MicroVmError(
        "port-taken",
        `port ${port} is in use by another program; choose another hostPort, or end that program`,
        details,
      );
    case "EACCES":
      return new MicroVmError(
        "host-unusable",
        `this user may not listen on port ${port}; choose a hostPort from 1024 up`,
        details,
      );
    case "EADDRNOTAVAIL":
      return new MicroVmError(
        "host-unusable",
        `no network interface of this host has the address of port ${port}; choose another hostAddress`,
        details,
      );
    case undefined:
    default:
      return new MicroVmError("host-unusable", `cannot listen on port ${port}: ${messageOf(error)}`, details);
  }
}
