// What Node offers to who wants out or wants much. Says "begin" first, so that what doesn't begin is seen.

const { spawn } = require("node:child_process");
const { Worker } = require("node:worker_threads");
const net = require("node:net");

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Whether somebody answers at a port: the debugger, which would run anything for whoever connects.
const answers = (port) =>
  new Promise((done) => {
    const link = net.connect(port, "127.0.0.1", () => (link.destroy(), done(true)));
    link.on("error", () => done(false));
  });

const attacks = {
  // On a loopback of one's own it harms nobody; it must not be there before it is asked for.
  "node-inspector": async () => ({ gained: await answers(9229) }),
  "node-child-processes": async () => {
    const kept = [];
    let refused = 0;
    for (let n = 0; n < 200; n++) {
      try {
        const child = spawn("/bin/sleep", ["60"]);
        child.on("error", () => refused++);
        kept.push(child);
      } catch {
        refused++;
      }
    }
    await pause(300);
    kept.forEach((child) => child.kill("SIGKILL"));
    return { gained: refused === 0 };
  },
  "node-worker-threads": async () => {
    let refused = 0;
    for (let n = 0; n < 40; n++) {
      try {
        new Worker("setTimeout(() => {}, 60000)", { eval: true }).on("error", () => refused++);
      } catch {
        refused++;
      }
    }
    await pause(500);
    return { gained: false, refused };
  },
  "node-memory": () => {
    const kept = [];
    for (;;) kept.push(new Array(100000).fill(0).map((_, n) => ({ n })));
  },
  "node-array-buffers": () => {
    const kept = [];
    for (;;) kept.push(Buffer.alloc(16 << 20, 1));
  },
  "node-endless-loop": () => {
    for (;;);
  },
  "node-endless-microtasks": async () => {
    for (;;) await null;
  },
  "node-unhandled-rejection": async () => {
    Promise.reject(new Error("nobody listens"));
    await pause(50);
    return { gained: false };
  },
  "node-exits": () => process.exit(7),
  "node-result-with-traps": () => ({ toJSON: () => new Proxy({}, { ownKeys: () => { throw new Error("trap"); } }) }),
};

exports.handler = async (event) => {
  if (!event.attack) return "fine";
  process.stdout.write("begin\n");
  await pause(10);
  return attacks[event.attack]();
};
