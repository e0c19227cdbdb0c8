import { afterEach, describe, expect, it } from "vitest";
import { Stack, whyNoEngine } from "../lab/engine.js";
import { suiteName } from "../e2e/scene.js";

const reason = process.env["MICROVM_LAB_KERNEL"] ? whyNoEngine() : "no kernel in $MICROVM_LAB_KERNEL";

/** Nothing is booted and no server asked: what counts is that program and provider find and run the package. */
const ARGS = `{
  kernel: ${JSON.stringify(process.env["MICROVM_LAB_KERNEL"])}, useNfsRoot: true, nfsServer: "127.0.0.1", nfsPort: 11111,
  powerState: "stopped", preflight: "off",
}`;

const imported = `import { MicroVm } from "pulumi-microvm";`;
const typed = `import { MicroVm, type MicroVmArgs } from "pulumi-microvm";
const args: MicroVmArgs = ${ARGS};
export const cmdline = new MicroVm("vm", args).cmdline;`;
const manifest = (more: object): string => JSON.stringify({ name: "program", private: true, ...more });

interface Program {
  readonly files: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
}

const programs: Readonly<Record<string, Program>> = {
  CommonJS: {
    files: {
      "index.js": `const { MicroVm } = require("pulumi-microvm");
exports.cmdline = new MicroVm("vm", ${ARGS}).cmdline;`,
    },
  },
  "ECMAScript modules": {
    files: {
      "package.json": manifest({ type: "module", main: "index.js" }),
      "index.js": `${imported}
export const cmdline = new MicroVm("vm", ${ARGS}).cmdline;`,
    },
  },
  "TypeScript by Pulumi's ts-node": {
    files: { "package.json": manifest({ main: "index.ts" }), "index.ts": typed },
  },
  "TypeScript by tsx": {
    files: { "package.json": manifest({ type: "module", main: "index.ts" }), "index.ts": typed },
    env: { NODE_OPTIONS: "--import tsx" },
  },
};

describe.skipIf(reason !== undefined)(suiteName("a program", reason), () => {
  let stack: Stack | undefined;
  afterEach(async () => stack?.dispose());

  for (const [kind, { files, env }] of Object.entries(programs)) {
    it(`in ${kind} previews its VM`, async () => {
      stack = await Stack.create({ program: files, env });
      const steps = await stack.previewSteps();
      const vm = steps.find(({ newState }) => newState?.type === "microvm:index:MicroVm");
      expect(vm?.op).toBe("create");
      expect(vm?.newState?.inputs?.["cmdline"]).toMatch(
        /^console=ttyS0 root=\/dev\/nfs nfsroot=10\.0\.2\.2:/,
      );
      expect(steps.filter(({ newState }) => newState?.type.startsWith("pulumi:providers:"))).toHaveLength(1);
    });
  }
});
