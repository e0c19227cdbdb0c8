/** One page in a headless Chromium, over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/). */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { WebSocket } from "undici";
import { isOnPath } from "./programs.js";

/** Why no page can be looked at here, as the reason of a skipped test; undefined when one can. */
export function whyNoBrowser(): string | undefined {
  return isOnPath("chromium") ? undefined : "chromium is not installed";
}

/** What the protocol answers or tells. */
interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly message: string };
}

export class Page {
  /** What the browser complained of: refused content, errors of scripts. */
  readonly problems: string[] = [];
  readonly #waiting = new Map<number, (message: Message) => void>();
  #last = 0;

  private constructor(
    readonly browser: ChildProcess,
    readonly folder: string,
    readonly socket: WebSocket,
  ) {
    socket.addEventListener("message", ({ data }) => this.#take(JSON.parse(String(data)) as Message));
  }

  /** Opens a page that shows nothing yet. */
  static async open(): Promise<Page> {
    const folder = await mkdtemp(join(tmpdir(), "lab-browser-"));
    const browser = spawn(
      "chromium",
      [
        "--headless=new",
        // Chromium's own sandbox does not run as root.
        ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
        "--disable-gpu",
        "--no-first-run",
        "--window-size=1200,900",
        "--remote-debugging-port=0",
        `--user-data-dir=${folder}`,
        "about:blank",
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    const address = await listeningAddress(browser);
    const listed = await fetch(`http://${new URL(address).host}/json/list`);
    const targets = (await listed.json()) as { type: string; webSocketDebuggerUrl: string }[];
    const target = targets.find(({ type }) => type === "page");
    if (target === undefined) throw new Error("chromium has no page");
    const socket = new WebSocket(target.webSocketDebuggerUrl);
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("error", reject);
    });
    const page = new Page(browser, folder, socket);
    for (const domain of ["Runtime", "Log", "Page"]) await page.#send(`${domain}.enable`);
    return page;
  }

  async goto(url: string): Promise<void> {
    await this.#send("Page.navigate", { url });
  }

  /** The value of a JavaScript expression in the page. */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value?: unknown }).value;
  }

  /** The text that a person sees. */
  async text(): Promise<string> {
    return String(await this.evaluate("document.body.innerText"));
  }

  /** Shows the page as to a person who prefers light or dark colours. */
  async prefer(colorScheme: "light" | "dark"): Promise<void> {
    await this.#send("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: colorScheme }],
    });
  }

  /** Writes what is seen as a PNG file. */
  async screenshot(path: string): Promise<void> {
    const { data } = await this.#send("Page.captureScreenshot", { format: "png" });
    await writeFile(path, Buffer.from(String(data), "base64"));
  }

  async close(): Promise<void> {
    const ended = once(this.browser, "exit");
    this.browser.kill();
    await ended;
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #send(method: string, params: object = {}): Promise<Readonly<Record<string, unknown>>> {
    const id = (this.#last += 1);
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve));
    this.socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answer;
    if (result === undefined) throw new Error(`${method}: ${error?.message}`);
    return result;
  }

  #take({ id, method, params, ...answer }: Message): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.(answer);
      this.#waiting.delete(id);
    } else if (method === "Log.entryAdded" || method === "Runtime.exceptionThrown") {
      this.problems.push(JSON.stringify(params));
    }
  }
}

async function listeningAddress(browser: ChildProcess): Promise<string> {
  if (browser.stderr === null) throw new Error("chromium has no output");
  for await (const line of createInterface({ input: browser.stderr })) {
    const [, address] = /^DevTools listening on (ws:\/\/\S+)/.exec(line) ?? [];
    if (address === undefined) continue;
    browser.stderr.resume();
    return address;
  }
  throw new Error("chromium ended before it could be asked");
}
