import { createHash } from "node:crypto";
import { lookup } from "node:dns/promises";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { whyNoBed } from "../lab/bed.js";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { freePort } from "../lab/nfs.js";
import { isOnPath, whyNoAgentFs } from "../lab/programs.js";
import { mustRun, type RunResult, runProcess } from "../lab/run-process.js";

const REPOSITORY = resolve(__dirname, "../..");
const EXAMPLE = join(REPOSITORY, "examples/debian-root");
const MICROVM = join(REPOSITORY, "dist/provider/cli/microvm.js");

/** `1`: a root is made, from this host's apt sources; or a folder in which make-root has made one, with an SSH_KEY. */
const asked = process.env["MICROVM_DEBIAN_ROOT"] ?? "";

/** What the guest installs over the network: small, in each of Debian's and Ubuntu's releases, and in need of the C library alone. */
const PACKAGE = "hello";

function whyNot(): string | undefined {
  if (asked === "") return "takes minutes: npm run test:debian";
  if (!process.env["MICROVM_LAB_NFS_KERNEL"]) return "MICROVM_LAB_NFS_KERNEL is not set";
  if (!isOnPath("mmdebstrap")) return "mmdebstrap is not installed";
  if (!isOnPath("ssh")) return "ssh is not installed";
  return whyNoBed() ?? whyNoEngine();
}

/** What the guest does when it has booted, each line of it for the console. */
const WRITES = `#!/bin/sh
say() { echo "lab: $*" >/dev/console; }
run() {
  if "$@" >/srv/lab/log 2>&1; then say "ran: $*"; else sed "s/^/lab: failed: /" /srv/lab/log >/dev/console; fi
}
say "host name $(cat /proc/sys/kernel/hostname)"
say "$(tail -n 1 /etc/resolv.conf)"
apt-get update --print-uris | cut -d "'" -f 2 | sed -n '/InRelease$/s/^/lab: apt /p' >/dev/console
run apt-get install -y -q /srv/lab/lab.deb
for name in $(cat /srv/lab/names); do say "address of $name: $(getent ahostsv4 "$name" | head -n 1)"; done
if [ -e /srv/lab/online ]; then
  run apt-get update -q --error-on=any
  run apt-get install -y -q --no-install-recommends ${PACKAGE}
  say "it says: $(${PACKAGE})"
fi
say "done with $(dpkg-query --show lab)"
`;

const WRITES_UNIT = `[Unit]
After=at-boot.service
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=infinity
Environment=DEBIAN_FRONTEND=noninteractive
ExecStart=/usr/local/sbin/lab-writes
ExecStop=/bin/sh -c 'echo the last words >/var/last-words'
[Install]
WantedBy=multi-user.target
`;

/** Writes and closes files until the power-off kills it: asked to end, it writes on, the faster. The console has what each must be. */
const CLOSES = `#!/bin/sh
pause=1
trap pause= TERM
mkdir -p /var/closed
n=0
while :; do
  n=$((n + 1))
  head -c $((n * 7919 % 300000)) /dev/urandom >/var/closed/$n
  echo "lab: closed $n $(sha256sum </var/closed/$n | cut -c 1-64)." >/dev/console
  [ -z "$pause" ] || sleep 1
done
`;

const CLOSES_UNIT = `[Unit]
After=lab-writes.service
[Service]
ExecStart=/usr/local/sbin/lab-closes
TimeoutStopSec=5
[Install]
WantedBy=multi-user.target
`;

/** A package with one file, and a script that is run when it is installed. */
async function makePackage(folder: string, path: string): Promise<void> {
  const tree = join(folder, "lab");
  await mkdir(join(tree, "DEBIAN"), { recursive: true });
  await mkdir(join(tree, "usr/share/lab"), { recursive: true });
  await writeFile(join(tree, "usr/share/lab/hello"), "hello\n");
  const control = "Package: lab\nVersion: 1.0\nArchitecture: all\nMaintainer: lab\nDescription: of the lab\n";
  await writeFile(join(tree, "DEBIAN/control"), control);
  await writeFile(join(tree, "DEBIAN/postinst"), "#!/bin/sh\necho configured >/var/lib/lab\n", {
    mode: 0o755,
  });
  await mustRun("dpkg-deb", ["--root-owner-group", "--build", tree, path]);
}

/** What this host's apt would ask for, without asking. */
async function sourcesOfThisHost(): Promise<string[]> {
  const text = await mustRun("apt-get", ["update", "--print-uris"]);
  return [...text.matchAll(/^'([^']+)'/gm)].map(([, uri = ""]) => uri);
}

/** The file of {@link PACKAGE}'s program as this host's apt fetches it now, or why it cannot. Lists of this host are not touched. */
async function fetchPackage(folder: string): Promise<{ program: Buffer } | { why: string }> {
  for (const name of ["fetched", "lists/partial"]) await mkdir(join(folder, name), { recursive: true });
  // Who listens for new lists of this host is not told.
  const config = join(folder, "apt.conf");
  await writeFile(config, "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n");
  const apt = async (...words: string[]): Promise<RunResult> => {
    const own = [`Dir::State::Lists=${join(folder, "lists")}`, "APT::Sandbox::User=root"];
    const options = ["-q", "-c", config, ...own.flatMap((option) => ["-o", option])];
    return await runProcess("apt-get", [...options, ...words], { cwd: join(folder, "fetched") });
  };
  await apt("update");
  const download = await apt("download", PACKAGE);
  if (download.exitCode !== 0) {
    return { why: `this host's apt does not fetch ${PACKAGE}: ${download.output.trim().split("\n").at(-1)}` };
  }
  const [file = ""] = await readdir(join(folder, "fetched"));
  await mustRun("dpkg-deb", ["--extract", join(folder, "fetched", file), join(folder, "unpacked")]);
  return { program: await readFile(join(folder, "unpacked/usr/bin", PACKAGE)) };
}

/** Those of the names of servers that this host finds an address of. */
async function resolved(uris: readonly string[]): Promise<string[]> {
  const names = [...new Set(uris.map((uri) => new URL(uri).hostname))].filter((name) => /[a-z]/.test(name));
  const found = await Promise.allSettled(names.map((name) => lookup(name, { family: 4 })));
  return names.filter((_, index) => found[index]?.status === "fulfilled");
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

/** Reads a database's files, once its server has ended. */
async function openDatabase(path: string): Promise<(file: string) => Promise<Buffer>> {
  const { AgentFS } = await import("agentfs-sdk");
  const agent = await AgentFS.open({ path });
  return async (file) => await agent.fs.readFile(file);
}

const reason = whyNot();
describe.skipIf(reason !== undefined)(
  `examples/debian-root${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    let folder: string;
    let base: string;
    let fetched: Awaited<ReturnType<typeof fetchPackage>>;
    let names: string[];

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "lab-debian-"));
      base = join(folder, "debian");
      await mustRun("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(folder, "key")]);
      const SSH_KEY = join(folder, "key.pub");
      if (asked === "1") {
        await mustRun(join(EXAMPLE, "make-root"), [base], { env: { ...process.env, SSH_KEY } });
      } else {
        await mustRun("cp", ["--archive", asked, base]);
        await mustRun("cp", [SSH_KEY, join(base, "root/.ssh/authorized_keys")]);
      }
      fetched = await fetchPackage(folder);
      await mkdir(join(base, "srv/lab"), { recursive: true });
      if ("program" in fetched) await writeFile(join(base, "srv/lab/online"), "");
      names = await resolved(await sourcesOfThisHost());
      await writeFile(join(base, "srv/lab/names"), `${names.join("\n")}\n`);
      await makePackage(folder, join(base, "srv/lab/lab.deb"));
      const wants = join(base, "etc/systemd/system/multi-user.target.wants");
      await mkdir(wants, { recursive: true });
      for (const [name, script, unit] of [
        ["lab-writes", WRITES, WRITES_UNIT],
        ["lab-closes", CLOSES, CLOSES_UNIT],
      ] as const) {
        await writeFile(join(base, "usr/local/sbin", name), script, { mode: 0o755 });
        await writeFile(join(base, `etc/systemd/system/${name}.service`), unit);
        await symlink(`../${name}.service`, join(wants, `${name}.service`));
      }
    }, 900_000);
    afterAll(async () => {
      await rm(folder, { recursive: true, force: true });
    });

    // AgentFS goes first: it leaves the base as it is.
    describe.each([
      { server: "agentfs", why: whyNoAgentFs() },
      { server: "nfs-ganesha", why: undefined },
    ])("served by $server", ({ server, why }) => {
      const isAgentFs = server === "agentfs";
      const test = it.skipIf(why !== undefined);
      const titled = (title: string): string => (why === undefined ? title : `${title} (${why})`);
      let stack: Stack;
      let outputs: Readonly<Record<string, unknown>>;
      let log: string;
      let tree: string;
      let login: RunResult;
      let read: (path: string) => Promise<Buffer>;

      // One boot for all of them: up, until the guest has done what it does, off by its power button, down.
      beforeAll(async () => {
        if (why !== undefined) return;
        const sshPort = String(await freePort());
        stack = await Stack.create({
          from: EXAMPLE,
          program: {},
          config: { base, server, sshPort, "microvm:kernel": process.env["MICROVM_LAB_NFS_KERNEL"] ?? "" },
        });
        await stack.mustRun("up", "--yes", "--skip-preview");
        const path = String((await stack.outputs())["consoleLog"]);
        await vi.waitUntil(async () => (log = await readFile(path, "utf8")).includes("lab: closed 5 "), {
          timeout: 900_000,
          interval: 1000,
        });
        // Nobody knows the guest's key yet.
        const options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
        const words = [
          "-F",
          "none",
          "-i",
          join(folder, "key"),
          ...options.flatMap((option) => ["-o", option]),
        ];
        const ssh = ["-p", sshPort, "root@127.0.0.1", "cat /proc/sys/kernel/hostname; stat --format %a /tmp"];
        login = await runProcess("ssh", [...words, ...ssh], { timeoutSeconds: 120 });
        await stack.setConfig("powerState", "stopped");
        await stack.mustRun("up", "--yes", "--skip-preview");
        log = await readFile(path, "utf8");
        outputs = await stack.outputs();
        if (isAgentFs) {
          tree = await mustRun(process.execPath, [MICROVM, "changes", "debian"], { cwd: stack.program });
        }
        await stack.mustRun("destroy", "--yes");
        read = isAgentFs
          ? await openDatabase(join(stack.program, ".agentfs/debian.db"))
          : async (file) => await readFile(join(base, file));
      }, 1_500_000);
      afterAll(async () => {
        await stack?.dispose();
      });

      test(
        titled("boots to a login prompt, with its name, name server and this host's apt sources"),
        async () => {
          expect(log).toMatch(/^debian-[0-9a-f]+ login: /m);
          expect(log).toContain(`lab: host name ${String(outputs["vmName"])}`);
          expect(log).toContain("lab: nameserver 10.0.2.3");
          const sources = [...log.matchAll(/lab: apt (\S+)/g)].map(([, uri]) => uri);
          expect(sources).not.toEqual([]);
          expect(await sourcesOfThisHost()).toEqual(expect.arrayContaining(sources));
        },
      );

      test(titled("lets its user in by SSH, and everybody write in /tmp"), () => {
        expect(login.stdout, login.output).toBe(`${String(outputs["vmName"])}\n1777\n`);
      });

      test(titled("installs a package from a file, with its script"), async () => {
        expect(log).not.toContain("lab: failed: ");
        expect(log).toMatch(/lab: done with lab\s+1\.0\s/);
        expect(String(await read("/usr/share/lab/hello"))).toBe("hello\n");
        expect(String(await read("/var/lib/lab"))).toBe("configured\n");
        expect(String(await read("/var/lib/dpkg/status"))).toContain("Package: lab\n");
      });

      test(titled("finds addresses of names, as this host does"), (context) => {
        if (names.length === 0) context.skip("this host finds no address of its apt sources");
        for (const name of names) expect(log).toMatch(new RegExp(`lab: address of ${name}: [1-9]`));
      });

      test(titled("updates apt's lists and installs a package over the network"), async (context) => {
        const program = "why" in fetched ? context.skip(fetched.why) : fetched.program;
        expect(log).toContain("lab: ran: apt-get update");
        expect(log).toContain("lab: ran: apt-get install -y -q --no-install-recommends hello");
        expect(log).toContain("lab: it says: Hello, world!");
        expect(sha256(await read(`/usr/bin/${PACKAGE}`))).toBe(sha256(program));
      });

      test(titled("loses nothing that it wrote and closed before its power-off, to the last"), async () => {
        expect(log).toContain("reboot: Power down");
        const closed = [...log.matchAll(/lab: closed (\d+) ([0-9a-f]{64})\./g)];
        expect(closed.length).toBeGreaterThan(10);
        for (const [, n, hash] of closed) expect(sha256(await read(`/var/closed/${n}`)), n).toBe(hash);
        expect(String(await read("/var/last-words"))).toBe("the last words\n");
      });

      const onAgentFs = isAgentFs ? test : () => undefined;
      onAgentFs(
        titled("shows the packages' files among its changes, as an output and by `microvm changes`"),
        async () => {
          const { changes } = outputs["changes"] as { changes: Record<string, unknown>[] };
          const of = (path: string) => changes.find((change) => change["path"] === path);
          const file = { change: "added", kind: "file" };
          expect(of("/usr/share/lab/hello")).toMatchObject({ ...file, sizeBytes: 6 });
          expect(of("/var/lib/lab")).toMatchObject({ ...file, sizeBytes: 11 });
          expect(of("/var/last-words")).toMatchObject({ ...file, sizeBytes: 15 });
          expect(of("/var/lib/dpkg/status")).toMatchObject({ change: "modified" });
          expect(tree).toMatch(/^[├└]── (M )?usr\//m);
          expect(tree).toMatch(/A lab\/ \(\S+\)\n.*A hello \(0?644, 6 bytes\)/);
          expect(tree).toMatch(/ M status \(/);
          await expect(stat(join(base, "usr/share/lab/hello"))).rejects.toThrow("ENOENT");
          if ("why" in fetched) return;
          expect(of(`/usr/bin/${PACKAGE}`)).toMatchObject({ ...file, sizeBytes: fetched.program.length });
          expect(tree).toMatch(/A hello \(0?755, [\d.]+ KiB\)/);
        },
      );

      test(titled("leaves nothing but the database, or what it wrote"), async () => {
        expect(await stack.leftovers()).toEqual([]);
      });
    });
  },
);
