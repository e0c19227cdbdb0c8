import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

import { describe, expect, it, onTestFinished } from "vitest";

import { claimName } from "../../../provider/host/claim.js";
import { keepLeases, releaseLease, releaseLeases, takeLease } from "../../../provider/host/lease.js";
import type { LeaseHolder, PortLease } from "../../../provider/host/lease.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { removeVmDirectory } from "../../../provider/host/remove.js";
import { freePort } from "../../lab/nfs.js";
import { temporaryFolder } from "./folders.js";
import { sampleRecord, sampleWork } from "./sample-record.js";

/** A host of its own: a runtime directory, and VMs with records in a state directory. */
async function host() {
  const env = { XDG_RUNTIME_DIR: await temporaryFolder() };
  const stateDirectory = await temporaryFolder();
  return {
    env,
    stateDirectory,
    vm: async (vmName: string): Promise<LeaseHolder> => {
      const record = sampleRecord({ vmName });
      await claimName(stateDirectory, record, sampleWork());
      return { stateDirectory, vmName, instance: record.instance };
    },
    /** The leases that are held, as `tcp-8080/127.0.0.1`. */
    held: async () => {
      const leases = join(env.XDG_RUNTIME_DIR, "pulumi-microvm", "leases");
      const groups = (await readdir(leases)).filter((name) => !name.startsWith("."));
      const names = groups.map(async (group) =>
        (await readdir(join(leases, group))).map((address) => `${group}/${address}`),
      );
      return (await Promise.all(names)).flat();
    },
  };
}

async function tcp(address = "127.0.0.1"): Promise<PortLease> {
  return { protocol: "tcp", address, port: await freePort() };
}

describe("a lease of a port", () => {
  it("is one VM's until it gives it back", async () => {
    const { env, vm, held } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const lease = await tcp();
    await takeLease(lease, web, env);
    const second = takeLease(lease, db, env);
    await expect(second).rejects.toMatchObject({ code: "port-taken", input: "portForwards" });
    await expect(second).rejects.toThrow(/is the VM web's/);
    await releaseLeases(db.instance, env);
    expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
    await releaseLease(lease, web.instance, env);
    await takeLease(lease, db, env);
    expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
  });

  it("may be taken again by the VM that has it, and taken and given back again and again", async () => {
    const { env, vm, held } = await host();
    const web = await vm("web");
    const lease = await tcp();
    for (let turn = 0; turn < 3; turn++) {
      await takeLease(lease, web, env);
      await takeLease(lease, web, env);
      await releaseLease(lease, web.instance, env);
      await releaseLease(lease, web.instance, env);
      expect(await held()).toEqual([]);
    }
  });

  it("is given back with all others of the VM but those that it keeps", async () => {
    const { env, vm, held } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const [kept, dropped, foreign] = [await tcp(), await tcp(), await tcp()];
    await takeLease(kept, web, env);
    await takeLease(dropped, web, env);
    await takeLease(foreign, db, env);
    await keepLeases(web.instance, [kept, foreign], env);
    const left = [kept, foreign].map(({ port }) => `tcp-${port}/127.0.0.1`);
    expect(new Set(await held())).toEqual(new Set(left));
  });

  it("does not stand in the way of another address, protocol or port", async () => {
    const { env, vm, held } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const lease = await tcp();
    await takeLease(lease, web, env);
    await takeLease({ ...lease, address: "127.0.0.2" }, db, env);
    await takeLease({ ...lease, protocol: "udp" }, db, env);
    await takeLease({ ...lease, port: await freePort() }, db, env);
    expect(await held()).toHaveLength(4);
    await releaseLeases(db.instance, env);
    expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
  });

  it("of every address conflicts with each address, whichever was first", async () => {
    const { env, vm, held } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const lease = await tcp();
    const every = { ...lease, address: "0.0.0.0" };
    await takeLease(lease, web, env);
    await expect(takeLease(every, db, env)).rejects.toMatchObject({ code: "port-taken" });
    expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
    await releaseLeases(web.instance, env);
    await takeLease(every, db, env);
    await expect(takeLease(lease, web, env)).rejects.toMatchObject({ code: "port-taken" });
    await expect(takeLease(every, web, env)).rejects.toMatchObject({ code: "port-taken" });
    expect(await held()).toEqual([`tcp-${lease.port}/0.0.0.0`]);
  });

  it.each(["removed", "of another instance"])("lapses when the record of its holder is %s", async (how) => {
    const { env, vm, stateDirectory, held } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const lease = await tcp();
    const every = { ...lease, address: "0.0.0.0" };
    await takeLease(lease, web, env);
    await removeVmDirectory(stateDirectory, "web", web.instance);
    if (how === "of another instance") await vm("web");
    await takeLease(every, db, env);
    expect(await held()).toEqual([`tcp-${lease.port}/0.0.0.0`]);
    await removeVmDirectory(stateDirectory, "db", db.instance);
    const other = await vm("other");
    await takeLease(lease, other, env);
    await releaseLeases(web.instance, env);
    await releaseLeases(db.instance, env);
    expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
  });

  it("lapses with the whole state directory of its holder", async () => {
    const { env, vm, stateDirectory } = await host();
    const web = await vm("web");
    const lease = await tcp();
    await takeLease(lease, web, env);
    await rm(stateDirectory, { recursive: true });
    const elsewhere = { ...(await host()), env };
    await takeLease(lease, await elsewhere.vm("db"), env);
  });

  it("holds while the record of its holder is torn", async () => {
    const { env, vm, stateDirectory } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const lease = await tcp();
    await takeLease(lease, web, env);
    await writeFile(vmPaths(stateDirectory, "web").record, "{");
    await expect(takeLease(lease, db, env)).rejects.toMatchObject({ code: "port-taken" });
  });

  it("is not given for a TCP port that another program listens on, and leaves nothing", async () => {
    const { env, vm, held } = await host();
    const web = await vm("web");
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => {
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const lease = { protocol: "tcp", address: "127.0.0.1", port } as const;
    await expect(takeLease(lease, web, env)).rejects.toThrow(/in use by another program/);
    await expect(takeLease({ ...lease, address: "0.0.0.0" }, web, env)).rejects.toMatchObject({
      code: "port-taken",
    });
    expect(await held()).toEqual([]);
  });

  it("is not given for a UDP port that another program has", async () => {
    const { env, vm, held } = await host();
    const web = await vm("web");
    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    await once(socket, "listening");
    onTestFinished(() => {
      socket.close();
    });
    const { port } = socket.address();
    await expect(takeLease({ protocol: "udp", address: "127.0.0.1", port }, web, env)).rejects.toMatchObject({
      code: "port-taken",
    });
    expect(await held()).toEqual([]);
  });

  it("is not given for an address that no interface has", async () => {
    const { env, vm } = await host();
    const web = await vm("web");
    const lease = { ...(await tcp()), address: "192.0.2.1" }; // TEST-NET-1, RFC 5737
    await expect(takeLease(lease, web, env)).rejects.toThrow(/no network interface/);
  });

  it.each([
    { protocol: "tcp", address: "../..", port: 80 },
    { protocol: "tcp", address: "::1", port: 80 },
    { protocol: "tcp", address: "localhost", port: 80 },
    { protocol: "tcp", address: "127.0.0.1", port: 0 },
    { protocol: "tcp", address: "127.0.0.1", port: 65_536 },
    { protocol: "tcp", address: "127.0.0.1", port: 1.5 },
  ] as const)("is refused for $address and port $port", async (lease) => {
    const { env, vm } = await host();
    await expect(takeLease(lease, await vm("web"), env)).rejects.toMatchObject({ code: "invalid-input" });
  });

  it("that is torn is an error that names the folder", async () => {
    const { env, vm } = await host();
    const [web, db] = [await vm("web"), await vm("db")];
    const lease = await tcp();
    await takeLease(lease, web, env);
    const group = join(env.XDG_RUNTIME_DIR, "pulumi-microvm", "leases", `tcp-${lease.port}`);
    await writeFile(join(group, "127.0.0.1", "holder.json"), "{");
    await expect(takeLease(lease, db, env)).rejects.toThrow(join(group, "127.0.0.1"));
    await rm(join(group, "127.0.0.1", "holder.json"));
    await writeFile(join(group, "127.0.0.1", "stray"), "");
    await expect(takeLease(lease, db, env)).rejects.toThrow(group);
  });
});

describe("many leases at once", () => {
  it("of one port: one of 32 VMs gets it", async () => {
    const { env, vm, held } = await host();
    const vms = await Promise.all(Array.from({ length: 32 }, (_, index) => vm(`vm${index}`)));
    const lease = await tcp();
    const results = await Promise.allSettled(vms.map((holder) => takeLease(lease, holder, env)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "port-taken" });
    }
    expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
  });

  it("of a lapsed port: one of 32 VMs takes it over, and the dead one's giving back harms nobody", async () => {
    const { env, vm, stateDirectory, held } = await host();
    const lease = await tcp();
    for (let turn = 0; turn < 5; turn++) {
      const dead = await vm("dead");
      await takeLease(lease, dead, env);
      await removeVmDirectory(stateDirectory, "dead", dead.instance);
      const vms = await Promise.all(Array.from({ length: 32 }, (_, index) => vm(`vm${turn}-${index}`)));
      const [results] = await Promise.all([
        Promise.allSettled(vms.map((holder) => takeLease(lease, holder, env))),
        releaseLeases(dead.instance, env),
        releaseLeases(dead.instance, env),
      ]);
      expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
      expect(await held()).toEqual([`tcp-${lease.port}/127.0.0.1`]);
      for (const holder of vms) await releaseLeases(holder.instance, env);
      expect(await held()).toEqual([]);
    }
  });

  it("of one address and of every address: never both", async () => {
    const { env, vm, held } = await host();
    const lease = await tcp();
    const vms = await Promise.all(Array.from({ length: 16 }, (_, index) => vm(`vm${index}`)));
    for (let turn = 0; turn < 5; turn++) {
      await Promise.allSettled(
        vms.map((holder, index) =>
          takeLease({ ...lease, address: index % 2 === 0 ? "0.0.0.0" : `127.0.0.${index}` }, holder, env),
        ),
      );
      const names = await held();
      expect(names.length).toBeGreaterThan(0);
      if (names.some((name) => name.endsWith("/0.0.0.0"))) expect(names).toHaveLength(1);
      for (const holder of vms) await releaseLeases(holder.instance, env);
    }
  });
});
