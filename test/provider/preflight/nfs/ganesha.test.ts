import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe as suite, expect, it } from "vitest";

import {
  describe,
  getAttributes,
  type NfsFinding,
  type ProbeRequest,
  probeNfs,
} from "../../../../provider/preflight/nfs/index.js";
import { type NfsServer, startNfsServer, whyNoNfsServer } from "../../../lab/nfs.js";
import { elfFile } from "./elf.js";

const reason = whyNoNfsServer();
const X86_64 = 62;
const AARCH64 = 183;

suite.skipIf(reason !== undefined)(
  `the probe of nfs-ganesha${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    let folder: string;
    let root: string;
    let server: NfsServer;

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "probe-"));
      root = join(folder, "root");
      const denied = join(folder, "denied");
      const empty = join(folder, "empty");
      for (const path of [root, denied, empty]) await mkdir(path);
      server = await startNfsServer({
        exports: [{ path: root }, { path: empty }, { path: denied, access: "None" }],
      });
    }, 40_000);

    afterAll(async () => {
      await server?.stop();
      await rm(folder, { recursive: true, force: true });
    });

    async function probe(more: Partial<ProbeRequest> = {}): Promise<NfsFinding & { words: string }> {
      const request: ProbeRequest = {
        server: "127.0.0.1",
        port: server.nfsPort,
        mountPort: server.mountPort,
        path: root,
        arch: "x86_64",
        ...more,
      };
      const finding = await probeNfs(request);
      const { input, text } = describe(finding, request);
      return { ...finding, words: `${input}: ${text}` };
    }

    /** A file of the export, under a name that no other test uses. */
    async function file(content: Buffer | string, mode = 0o755): Promise<string> {
      const name = `/${randomBytes(6).toString("hex")}`;
      await writeFile(join(root, name), content);
      await chmod(join(root, name), mode);
      return name;
    }

    async function link(target: string): Promise<string> {
      const name = `/${randomBytes(6).toString("hex")}`;
      await symlink(target, join(root, name));
      return name;
    }

    it("finds a program, and its root's file handle works by itself", async () => {
      const init = await file(elfFile({ machine: X86_64 }));
      const finding = await probe({ init });
      expect(finding).toMatchObject({
        kind: "ok",
        mountPort: server.mountPort,
        root: { type: "directory", uid: process.getuid?.() },
        init: { path: init, resolvedPath: init, format: "elf" },
      });
      if (finding.kind !== "ok") return;
      const target = { server: "127.0.0.1", port: server.nfsPort };
      expect(await getAttributes(target, finding.rootFileHandle)).toEqual({
        kind: "ok",
        attributes: finding.root,
      });
      expect(await getAttributes(target, "00")).toEqual({ kind: "badhandle" });
    });

    it("reports the handle of a file that was there before as stale", async () => {
      const finding = await probe({ init: await file(elfFile({ machine: X86_64 })) });
      if (finding.kind !== "ok") throw new Error(finding.words);
      // The handle ends in the inode's generation number.
      const older = finding.rootFileHandle.replace(/.{8}$/, "ffffffff");
      expect(await getAttributes({ server: "127.0.0.1", port: server.nfsPort }, older)).toEqual({
        kind: "stale",
      });
    });

    it("takes the first of the kernel's own list that is there, and can be run", async () => {
      expect(await probe()).toMatchObject({
        kind: "init-missing",
        asked: false,
        tried: ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"],
        words: expect.stringMatching(/^nfsPath: .* holds no init program: \/sbin\/init, /),
      });
      await mkdir(join(root, "bin"));
      await mkdir(join(root, "sbin"));
      await writeFile(join(root, "bin/sh"), elfFile({ machine: X86_64 }), { mode: 0o755 });
      expect(await probe()).toMatchObject({ kind: "ok", init: { path: "/bin/sh" } });
      await writeFile(join(root, "sbin/init"), "no program", { mode: 0o755 });
      expect(await probe()).toMatchObject({ kind: "init-not-executable", path: "/sbin/init", asked: false });
      await writeFile(join(root, "sbin/init"), "#!/bin/none");
      expect(await probe()).toMatchObject({ kind: "ok", init: { path: "/bin/sh" } });
      expect(await probe({ startedBy: "initramfs" })).toMatchObject({
        kind: "interpreter-missing",
        path: "/sbin/init",
      });
      await rm(join(root, "sbin/init"));
      await symlink("/bin/sh", join(root, "sbin/init"));
      expect(await probe()).toMatchObject({
        kind: "ok",
        init: { path: "/sbin/init", resolvedPath: "/bin/sh" },
      });
    });

    it("follows links within the export: absolute, relative, and never out of it", async () => {
      const program = await file(elfFile({ machine: X86_64 }));
      const absolute = await link(program);
      const relative = await link(`./.././../..${absolute}`);
      expect(await probe({ init: relative })).toMatchObject({ kind: "ok", init: { resolvedPath: program } });
      expect(await probe({ init: await link(join(root, program)) })).toMatchObject({
        kind: "init-missing",
        missing: "/tmp",
      });
    });

    it("reports links in a circle, and a link to nothing", async () => {
      await symlink("/circle-b", join(root, "circle-a"));
      await symlink("circle-a", join(root, "circle-b"));
      expect(await probe({ init: "/circle-a" })).toMatchObject({
        kind: "init-not-executable",
        asked: true,
        why: expect.stringContaining("circle"),
      });
      expect(await probe({ init: await link("/no/such") })).toMatchObject({
        kind: "init-missing",
        missing: "/no",
      });
    });

    it("reports a program for another processor", async () => {
      const init = await file(elfFile({ machine: AARCH64 }));
      expect(await probe({ init })).toMatchObject({
        kind: "init-wrong-arch",
        found: "aarch64",
        expected: "x86_64",
        words: expect.stringContaining("is a program for aarch64, and the guest is x86_64"),
      });
      expect(await probe({ init, arch: "aarch64" })).toMatchObject({ kind: "ok" });
      expect(await probe({ init, arch: undefined })).toMatchObject({ kind: "ok" });
    });

    it("looks at a script's interpreter, and at that one's", async () => {
      const program = await file(elfFile({ machine: X86_64 }));
      const script = await file(`#!${program}\n`);
      const nested = await file(`#! ${script} -x\n`);
      expect(await probe({ init: nested })).toMatchObject({
        kind: "ok",
        init: { format: "script", interpreter: script },
      });
      const foreign = await file(`#!${await file(elfFile({ machine: AARCH64 }))}\n`);
      expect(await probe({ init: foreign })).toMatchObject({ kind: "init-wrong-arch" });
      expect(await probe({ init: await file("#!/bin/nosuch\n") })).toMatchObject({
        kind: "interpreter-missing",
        interpreter: "/bin/nosuch",
      });
      await writeFile(join(root, "self"), "#!/self\n", { mode: 0o755 });
      expect(await probe({ init: "/self" })).toMatchObject({
        kind: "init-not-executable",
        why: "its interpreter is a script, and so on",
      });
    });

    it("looks for the dynamic loader", async () => {
      const loader = await file(elfFile({ machine: X86_64, type: 3 }));
      const program = await file(elfFile({ machine: X86_64, type: 3, interpreter: loader }));
      expect(await probe({ init: program })).toMatchObject({ kind: "ok", init: { interpreter: loader } });
      const orphan = await file(elfFile({ machine: X86_64, interpreter: "/lib64/ld-linux-x86-64.so.2" }));
      expect(await probe({ init: orphan })).toMatchObject({
        kind: "interpreter-missing",
        words: expect.stringContaining("needs /lib64/ld-linux-x86-64.so.2, which is not there"),
      });
    });

    it.each([
      ["without execute permission", "#!/bin/sh\n", 0o644, /no execute permission \(mode 644\)/],
      ["that is empty", "", 0o755, /it is an empty file/],
      ["that is a text", "hello\n", 0o755, /neither an ELF program nor a script/],
    ])("reports an init %s", async (_name, content, mode, words) => {
      expect(await probe({ init: await file(content, mode) })).toMatchObject({
        kind: "init-not-executable",
        words: expect.stringMatching(words),
      });
    });

    it("reports an init that is a folder", async () => {
      await mkdir(join(root, "folder"));
      expect(await probe({ init: "/folder/" })).toMatchObject({
        kind: "init-not-executable",
        why: "it is a directory",
      });
    });

    it("lists the exports when the path is none of them", async () => {
      for (const path of ["/", "/nope", join(folder, "rooted"), join(folder, "denied")]) {
        const finding = await probe({ path });
        expect(finding).toMatchObject({
          kind: "export-unknown",
          exports: [root, join(folder, "empty")],
          words: expect.stringMatching(/^nfsPath: .* It exports /),
        });
      }
    });

    it("tells nfsd and mountd apart", async () => {
      expect(await probe({ port: server.mountPort })).toMatchObject({
        kind: "program-not-registered",
        program: "nfsd",
        words: expect.stringMatching(/^nfsPort: .* is not an NFS server/),
      });
      expect(await probe({ mountPort: server.nfsPort })).toMatchObject({
        kind: "program-not-registered",
        program: "mountd",
        words: expect.stringMatching(/^nfsMountPort: /),
      });
    });

    it("reports a server that has ended as refused", async () => {
      const other = await startNfsServer({ exports: [{ path: root }] });
      const target = { port: other.nfsPort, mountPort: other.mountPort };
      const init = await file(elfFile({ machine: X86_64 }));
      expect(await probe({ ...target, init })).toMatchObject({ kind: "ok" });
      await other.kill();
      expect(await probe({ ...target, init })).toMatchObject({
        kind: "refused",
        service: "nfsd",
        certain: true,
      });
      expect(await probe({ ...target, init, guestNetwork: "routed" })).toMatchObject({
        kind: "refused",
        certain: false,
      });
    }, 40_000);

    it("reports a server that is stopped as timed out, and finds it again", async () => {
      const init = await file(elfFile({ machine: X86_64 }));
      process.kill(server.pid, "SIGSTOP");
      try {
        expect(await probe({ init, limits: { stepMs: 200, totalMs: 1000 } })).toMatchObject({
          kind: "timed-out",
        });
      } finally {
        process.kill(server.pid, "SIGCONT");
      }
      expect(await probe({ init })).toMatchObject({ kind: "ok" });
    });
  },
);
