import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Page, whyNoBrowser } from "../../lab/browser.js";
import { isOnPath } from "../../lab/programs.js";
import { scriptedKernel, scriptOf } from "../../lab/scripted-guest.js";
import { ServerBed } from "./bed.js";

const reason = isOnPath("qemu-system-x86_64") ? whyNoBrowser() : "qemu-system-x86_64 is not installed";

/** What a guest that means harm writes to its console. */
const HOSTILE = '<img src="/x" onerror="document.title=1"><script>document.title=2</script>';
const TOKEN = "0123456789abcdef0123456789abcdef";

describe.skipIf(reason !== undefined)(
  `the status page in Chromium${reason === undefined ? "" : ` (skipped: ${reason})`}`,
  () => {
    let bed: ServerBed;
    let page: Page;
    beforeAll(async () => {
      bed = await ServerBed.open();
      const [script, end] = scriptOf("silent", "root=/dev/vda", "disk");
      await writeFile(join(bed.folder, "hostile.elf"), scriptedKernel(`${script}${HOSTILE}\r\n`, end));
      await bed.configure();
      await bed.start();
      page = await Page.open();
    });
    afterAll(async () => {
      await page.close();
      await bed.close();
    });
    beforeEach(() => {
      page.problems.length = 0;
    });

    it("says how to make the first VM", async () => {
      await page.goto(`${bed.url}/`);
      await expect.poll(async () => await page.text()).toContain("No VM yet.");
      await expect.poll(async () => await page.text()).toMatch(/microvm-restserver \d+\.\d+\.\d+/);
    });

    it("shows a new VM without being asked, and what happens to it", async () => {
      const kernel = join(bed.folder, "hostile.elf");
      const made = await bed.call("POST", "/v1/vms", { body: { vmName: "web", kernel } });
      expect(made).toMatchObject({ status: 200, body: { status: "RUNNING" } });
      const row = "document.querySelector('#vms tbody tr')?.innerText ?? ''";
      await expect.poll(async () => await page.evaluate(row), { timeout: 10_000 }).toContain("running");
      expect(await page.evaluate(row)).toContain(`disk ${join(bed.folder, "root.img")}`);
      expect(await page.evaluate(row)).toContain("proved");
      expect(await page.text()).toContain("1 of 1 running");
      await bed.call("PATCH", "/v1/vms/web", { body: { status: "paused" } });
      await expect.poll(async () => await page.evaluate(row), { timeout: 10_000 }).toContain("paused");
      expect(await page.text()).toContain("0 of 1 running");
    });

    it("shows a VM's console as text, whatever the guest has written", async () => {
      await page.evaluate("document.querySelector('#vms tbody button').click()");
      const screen = "document.getElementById('console').textContent";
      await expect.poll(async () => await page.evaluate(screen), { timeout: 10_000 }).toContain(HOSTILE);
      expect(await page.evaluate(screen)).toContain("VFS: Mounted root");
      expect(await page.text()).toContain("console=ttyS0");
      expect(await page.evaluate("document.title")).toBe("microVMs");
      expect(await page.evaluate("document.querySelectorAll('img').length")).toBe(0);
      // The address leads back to this VM.
      expect(await page.evaluate("location.hash")).toBe("#vm=web");
      for (const colors of ["light", "dark"] as const) {
        await page.prefer(colors);
        const ground = String(await page.evaluate("getComputedStyle(document.body).backgroundColor"));
        expect(brightness(ground) > 128).toBe(colors === "light");
        const folder = process.env["MICROVM_SCREENSHOTS"];
        if (folder !== undefined) await page.screenshot(join(folder, `page-${colors}.png`));
      }
      expect(page.problems).toEqual([]);
    });

    it("runs no script but its own", async () => {
      const script =
        "const s = document.createElement('script'); s.text = 'document.title = 3'; document.body.append(s)";
      await page.evaluate(script).catch(() => undefined); // refused already as an untrusted text
      await page
        .evaluate("document.body.setAttribute('onclick', 'document.title = 4'); document.body.click()")
        .catch(() => undefined);
      expect(await page.evaluate("document.title")).toBe("microVMs");
      expect(page.problems.join("\n")).toMatch(/Content Security Policy|TrustedScript/);
    });

    it("says so when the server has gone, and goes on when it is back", async () => {
      const port = Number(new URL(bed.url).port);
      await bed.stop();
      await expect
        .poll(async () => await page.text(), { timeout: 10_000 })
        .toContain("Nothing new from the server");
      await writeFile(join(bed.folder, "token"), TOKEN, { mode: 0o600 });
      await bed.configure({ token_file: "./token" });
      await bed.start({ port });
      await expect
        .poll(async () => await page.text(), { timeout: 10_000 })
        .toContain("This server asks for its token");
    });

    it("asks for the server's token, and again when it is a wrong one", async () => {
      const give = async (token: string) =>
        await page.evaluate(
          `document.getElementById('token').value = '${token}'; document.getElementById('access').requestSubmit()`,
        );
      await page.goto("about:blank");
      await page.goto(`${bed.url}/`);
      await expect.poll(async () => await page.text()).toContain("This server asks for its token");
      expect(await page.text()).not.toContain("web");
      await give("wrong-wrong-wrong-wrong");
      await expect.poll(async () => await page.text()).toContain("is not this server's");
      await give(TOKEN);
      await expect.poll(async () => await page.text()).toContain("web");
      expect(await page.text()).not.toContain("asks for its token");
      await bed.call("DELETE", "/v1/vms/web", { headers: { authorization: `Bearer ${TOKEN}` } });
      await expect.poll(async () => await page.text(), { timeout: 10_000 }).toContain("No VM yet.");
    });
  },
);

/** Of a colour as the browser computes it: `rgb(20, 24, 26)`. */
function brightness(color: string): number {
  const parts = (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  return parts.reduce((sum, part) => sum + part, 0) / parts.length;
}
