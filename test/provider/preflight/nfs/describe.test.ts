import { describe as suite, expect, it } from "vitest";

import { describe, type NfsFinding, type NfsTarget } from "../../../../provider/preflight/nfs/index.js";

const target: NfsTarget = { server: "192.0.2.7", port: 2049, mountPort: 20_048, path: "/srv/guest" };
const nfsd = { certain: true, service: "nfsd", port: 2049 } as const;
const mountd = { certain: true, service: "mountd", port: 20_048 } as const;
const rpcbind = { certain: true, service: "rpcbind", port: 111 } as const;

const words = (finding: NfsFinding): string => {
  const { input, text } = describe(finding, target);
  return `${input}: ${text}`;
};

suite("a finding in words", () => {
  it.each<[NfsFinding, string]>([
    [
      { kind: "refused", ...nfsd },
      "nfsPort: nothing listens at 192.0.2.7 port 2049 (nfsd) (connection refused). Start the NFS server, or give the TCP port that it listens on",
    ],
    [
      { kind: "refused", ...mountd },
      "nfsMountPort: nothing listens at 192.0.2.7 port 20048 (mountd) (connection refused). Start the server's mount service, or give its TCP port (for AgentFS the same as nfsPort)",
    ],
    [
      { kind: "refused", ...rpcbind },
      "nfsMountPort: nothing listens at 192.0.2.7 port 111 (rpcbind) (connection refused). Start rpcbind on the server, or set nfsMountPort to the port of its mount service",
    ],
    [
      { kind: "unreachable", ...nfsd, reason: "EHOSTUNREACH" },
      "nfsServer: 192.0.2.7 port 2049 (nfsd) cannot be reached from this host (EHOSTUNREACH). Correct the address, or the route to it",
    ],
    [
      { kind: "timed-out", ...nfsd, step: "connect", bound: "step", seconds: 2, receivedBytes: 0 },
      "nfsServer: 192.0.2.7 port 2049 (nfsd) did not accept a connection within 2 s. Check that the server is up and that no firewall drops TCP port 2049",
    ],
    [
      { kind: "timed-out", ...mountd, step: "MNT", bound: "probe", seconds: 5, receivedBytes: 7 },
      "nfsMountPort: 192.0.2.7 port 20048 (mountd) began an answer to MNT and did not finish it before the 5 s of the probe were over. Check that the server is up and that no firewall drops TCP port 20048",
    ],
    [
      { kind: "program-not-registered", ...rpcbind, program: "mountd" },
      "nfsMountPort: rpcbind at 192.0.2.7 port 111 knows no mount service version 3 over TCP. Start the NFS server's mountd, or set nfsMountPort to its port",
    ],
    [
      { kind: "version-mismatch", ...nfsd, wanted: 3, lowest: 4, highest: 4 },
      "nfsPort: 192.0.2.7 port 2049 (nfsd) speaks version 4, and version 3 is needed. Switch NFS version 3 on in the server's configuration",
    ],
    [
      { kind: "version-mismatch", ...rpcbind, wanted: 2, lowest: 3, highest: 4 },
      "nfsMountPort: 192.0.2.7 port 111 (rpcbind) speaks version 3 to 4, and version 2 is needed. Start rpcbind on the server, or set nfsMountPort to the port of its mount service",
    ],
    [
      { kind: "not-rpc", ...mountd, step: "NULL", found: "an empty file handle" },
      "nfsMountPort: 192.0.2.7 port 20048 (mountd) does not answer as a mount service does: an empty file handle (NULL). Start the server's mount service, or give its TCP port (for AgentFS the same as nfsPort)",
    ],
    [
      { kind: "export-unknown", certain: true, status: "MNT3ERR_NOENT", exports: [] },
      'nfsPath: 192.0.2.7 does not export "/srv/guest" (MNT3ERR_NOENT). It exports nothing: add the folder to its exports',
    ],
    [
      { kind: "export-unknown", certain: true, status: "MNT3ERR_ACCES", exports: ["/a", "/b"] },
      'nfsPath: 192.0.2.7 does not export "/srv/guest", or not to this host (MNT3ERR_ACCES). It exports "/a", "/b": give one of these, or add the folder to its exports',
    ],
    [
      { kind: "init-missing", certain: true, asked: true, tried: ["/sbin/my"], missing: "/sbin" },
      "kernelArgs: 192.0.2.7:/srv/guest holds no init program: /sbin/my not found (/sbin is missing). Correct init=, or put the program there",
    ],
    [
      {
        kind: "interpreter-missing",
        certain: true,
        asked: false,
        path: "/sbin/init",
        interpreter: "/lib/ld.so",
      },
      "nfsPath: /sbin/init in 192.0.2.7:/srv/guest needs /lib/ld.so, which is not there. Put it there, or use a statically linked program",
    ],
  ])("%#", (finding, expected) => {
    expect(words(finding)).toBe(expected);
  });

  it("shows ten exports of many", () => {
    const exports = Array.from({ length: 12 }, (_, index) => `/e${index}`);
    const text = words({ kind: "export-unknown", certain: true, status: "MNT3ERR_NOENT", exports });
    expect(text).toContain('"/e9" and 2 more');
    expect(text).not.toContain("/e10");
  });

  it("says what helps a guest that has no source port below 1024", () => {
    const denied = { certain: true, step: "MNT", needsPrivilegedPort: true } as const;
    for (const finding of [
      { kind: "access-denied", ...denied, status: "MNT3ERR_ACCES", at: "/" },
      { kind: "rpc-denied", ...nfsd, ...denied, reason: "AUTH_TOOWEAK" },
    ] as const) {
      expect(words(finding)).toMatch(/^nfsServer: .*source ports below 1024.*insecure/);
    }
  });

  it("lets no control character of a server through", () => {
    const path = "/x\u001b[2J\n\u202e";
    expect(
      words({ kind: "init-not-executable", certain: true, asked: false, path, why: "it is\r\n" }),
    ).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });
});
