// Calls a user's JavaScript function: the sandbox side of the wire protocol (src/runtime/wire.rs).
//
// Run as `node shim.cjs` with the daemon's socket as descriptor 3. For Node 18 and later; tried with 20.
// User code shares this thread: while a handler waits, its promises and timers run here.
'use strict';

const fs = require('fs');
const net = require('net');
const path = require('path');

const VERSION = 1;
const [SPECIALISE, INVOKE, READY, SPECIALISED, RESULT] = [1, 2, 16, 17, 18];
const SOCKET_FD = 3;
const HEADER_BYTES = 8;
const META_BYTES_MAX = 65535;
const READ_BYTES = 65536;
const MESSAGE_CHARS_MAX = 8192;
const FRAME_CHARS_MAX = 400;
const FRAMES_MAX = 50;
// What a script may print before the rest counts as log only: the largest result, and a little.
const SCRIPT_OUTPUT_BYTES_MAX = 6 * 1024 * 1024 + 65536;
// An environment variable can't be larger than 128 KiB (MAX_ARG_STRLEN), name included.
const PAYLOAD_ENV_BYTES_MAX = 128 * 1024 - 16;

const FILES = ['index', 'main'];
const EXTENSIONS = ['.js', '.mjs', '.cjs'];
const FUNCTIONS = ['handler', 'main'];

const { parse, stringify } = JSON;
const now = performance.now.bind(performance);

// --- frames

/** Frames over the inherited socket. Calls `onFrame(kind, meta, body)` for each; ends the process when the daemon is gone. */
class Channel {
  constructor(fd, onFrame) {
    this.fd = fd;
    this.onFrame = onFrame;
    this.chunks = []; // the beginning of a frame whose rest is to come
    this.held = 0;
    this.need = HEADER_BYTES;
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    this.socket = new net.Socket({ fd, onread: { buffer, callback: (count) => this.take(buffer.subarray(0, count)) } });
    this.socket.on('error', () => process.reallyExit(0));
    this.socket.on('end', () => process.reallyExit(0));
    this.socket.resume();
  }

  take(bytes) {
    if (this.held > 0) {
      this.hold(bytes, this.need);
      if (this.held < this.need) return true;
      bytes = Buffer.concat(this.chunks);
      this.chunks = [];
      this.held = 0;
    }
    while (bytes.length > 0) {
      const need = bytes.length < HEADER_BYTES ? HEADER_BYTES : frameBytes(bytes);
      if (bytes.length < need) {
        this.hold(bytes, need);
        return true;
      }
      const metaEnd = HEADER_BYTES + bytes.readUInt16LE(2);
      const meta = parse(bytes.utf8Slice(HEADER_BYTES, metaEnd));
      const body = bytes.utf8Slice(metaEnd, need);
      const kind = bytes[1];
      bytes = bytes.subarray(need);
      this.onFrame(kind, meta, body);
    }
    return true;
  }

  /** Copies, because the next read uses the same buffer. */
  hold(bytes, need) {
    this.chunks.push(Buffer.from(bytes));
    this.held += bytes.length;
    this.need = need;
  }

  /** `meta` and `body` are strings. One write, unless the socket is full. */
  send(kind, meta, body) {
    const frame = frameOf(kind, meta, body);
    let sent = 0;
    try {
      while (sent < frame.length) sent += fs.writeSync(this.fd, frame, sent);
    } catch (error) {
      if (error.code !== 'EAGAIN') process.reallyExit(0);
      this.socket.write(frame.subarray(sent));
    }
  }
}

function frameOf(kind, meta, body) {
  const metaBytes = Buffer.byteLength(meta);
  const bodyBytes = Buffer.byteLength(body);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + metaBytes + bodyBytes);
  frame[0] = VERSION;
  frame[1] = kind;
  frame.writeUInt16LE(metaBytes, 2);
  frame.writeUInt32LE(bodyBytes, 4);
  frame.utf8Write(meta, HEADER_BYTES, metaBytes);
  frame.utf8Write(body, HEADER_BYTES + metaBytes, bodyBytes);
  return frame;
}

function frameBytes(bytes) {
  if (bytes[0] !== VERSION) process.reallyExit(70);
  return HEADER_BYTES + bytes.readUInt16LE(2) + bytes.readUInt32LE(4);
}

// --- errors

/** The user's code can't be called, for a reason of ours to tell. */
class HandlerNotFound extends Error {
  name = 'HandlerNotFound';
}

function runtimeError(errorType, errorMessage, stackTrace = []) {
  return {
    errorType: errorType.slice(0, 256),
    errorMessage: errorMessage.slice(0, MESSAGE_CHARS_MAX),
    stackTrace: stackTrace.slice(0, FRAMES_MAX).map((line) => line.slice(0, FRAME_CHARS_MAX)),
  };
}

/** What the daemon records of whatever was thrown: class, message, the frames in the user's own files. */
function describe(thrown, root) {
  try {
    if (!(thrown instanceof Error) && typeof thrown?.stack !== 'string') {
      return runtimeError(typeof thrown, typeof thrown === 'string' ? thrown : stringify(thrown) ?? String(thrown));
    }
    const name = String(thrown.name || thrown.constructor?.name || 'Error');
    return runtimeError(name, String(thrown.message), stackOf(thrown, root));
  } catch {
    return runtimeError('Error', "(what was thrown can't be described)");
  }
}

function stackOf(error, root) {
  const lines = String(error.stack).split('\n');
  const users = lines.filter((line) => line.startsWith('    at ') && line.includes(root + '/'));
  // A SyntaxError's stack begins with the place, the line and a caret under it.
  if (error instanceof SyntaxError && lines[0].includes(root + '/')) {
    return [lines.slice(0, Math.max(1, lines.indexOf(''))).join('\n'), ...users];
  }
  return users;
}

/** JSON that fits a frame: of an error too large for it first the trace goes, then the message's end. */
function encodeMeta(meta) {
  let text = stringify(meta);
  if (meta.error && Buffer.byteLength(text) > META_BYTES_MAX) {
    meta.error.stackTrace = [];
    text = stringify(meta);
    if (Buffer.byteLength(text) > META_BYTES_MAX) {
      meta.error.errorMessage = meta.error.errorMessage.slice(0, 1024);
      text = stringify(meta);
    }
  }
  return text;
}

// --- the context

class Context {
  callbackWaitsForEmptyEventLoop = true;
  identity = undefined;
  clientContext = undefined;
  #deadlineMs;
  #call;

  constructor(facts, invoke, call) {
    Object.assign(this, facts);
    this.awsRequestId = this.requestId = invoke.id;
    this.modelId = invoke.modelId;
    this.#deadlineMs = invoke.deadlineMs;
    this.#call = call;
  }

  getRemainingTimeInMillis() {
    return Math.max(0, this.#deadlineMs - Date.now());
  }

  /** Counts tokens of a language model towards this call's record. */
  addLlmTokens(count) {
    if (!Number.isSafeInteger(count) || count < 0) throw new RangeError('a count of tokens is a whole number, not negative');
    this.#call.llmTokens = (this.#call.llmTokens ?? 0) + count;
  }

  done(error, value) {
    this.#call.callback(error, value);
  }

  succeed(value) {
    this.#call.callback(null, value);
  }

  fail(error) {
    this.#call.callback(error ?? new Error('failed without a reason'));
  }
}

function functionFacts(specialise) {
  const { functionName } = specialise;
  const region = process.env.AWS_REGION ?? 'us-east-1';
  return {
    functionName,
    functionId: specialise.functionId,
    functionVersion: String(specialise.functionVersion),
    invokedFunctionArn: `arn:aws:lambda:${region}:000000000000:function:${functionName}`,
    memoryLimitInMB: String(specialise.memoryMb),
    memoryMb: specialise.memoryMb,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME ?? `/aws/lambda/${functionName}`,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME ?? '',
  };
}

// --- loading

const isFile = (file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;

/** [file, function path or undefined] that a handler string names; without one the convention says. */
function locate(root, handler) {
  const find = (stem) => EXTENSIONS.map((extension) => path.join(root, stem + extension)).find(isFile);
  const usual = () => FILES.map(find).find(Boolean);
  if (!handler) {
    const file = usual();
    if (!file) throw new HandlerNotFound('the package has neither index.js (.mjs, .cjs) nor main.js; name the file with handler');
    return [file, undefined];
  }
  const slash = handler.lastIndexOf('/') + 1;
  const [stem, ...names] = handler.slice(slash).split('.');
  const named = find(handler.slice(0, slash) + stem);
  if (named) return [named, names.length ? names : undefined];
  const file = names.length || slash ? undefined : usual();
  if (!file) throw new HandlerNotFound(`the package has no file ${handler.slice(0, slash)}${stem}.js (.mjs, .cjs)`);
  return [file, [stem]]; // one word: a function in the usual file
}

async function importModule(file) {
  const isEsm = file.endsWith('.mjs') || (file.endsWith('.js') && packageType(file) === 'module');
  if (!isEsm) {
    try {
      return require(file);
    } catch (error) {
      const needsImport = error?.code === 'ERR_REQUIRE_ASYNC_MODULE' || error?.code === 'ERR_REQUIRE_ESM';
      const isMistaken = error instanceof SyntaxError && MODULE_SYNTAX_REFUSED.test(error.message) && tellModules();
      if (!needsImport && !isMistaken) throw error;
    }
  }
  try {
    return await import(require('url').pathToFileURL(file));
  } catch (error) {
    if (error instanceof SyntaxError) addPlace(error, file);
    throw error;
  }
}

/** What a parser for CommonJS says of a module. */
const MODULE_SYNTAX_REFUSED = /^(Cannot use import statement outside a module|Unexpected token 'export'|Cannot use 'import\.meta')/;

/** Before 20.19 Node takes a .js file of no declared type for CommonJS; from here on it goes by what the file says, as later ones do. */
function tellModules() {
  const { register } = require('module');
  if (!register || process.features.require_module) return false;
  const hook = `import { readFileSync } from 'node:fs';
    const says = /^\\s*(?:export\\b|import\\b(?!\\s*\\())/m;
    export function load(url, context, next) {
      const isMistaken = context.format === 'commonjs' && url.endsWith('.js') && says.test(readFileSync(new URL(url), 'utf8'));
      return next(url, isMistaken ? { ...context, format: 'module' } : context);
    }`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
  return true;
}

/** The `type` of the nearest package.json. */
function packageType(file) {
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    try {
      return parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).type;
    } catch (error) {
      if (error.code !== 'ENOENT') return undefined;
    }
    if (folder === path.dirname(folder)) return undefined;
  }
}

/** An ES module's SyntaxError doesn't say where; `node --check` does. */
function addPlace(error, file) {
  const { stderr } = require('child_process').spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' });
  if (typeof stderr === 'string' && stderr.includes('SyntaxError')) error.stack = stderr.trim();
}

/** The function to call, or undefined for a module that exports nothing. */
function findFunction(module, names, file) {
  const at = (from, keys) => keys.reduce((value, key) => value?.[key], from);
  const isEsm = Object.prototype.toString.call(module) === '[object Module]';
  const homes = isEsm || module?.__esModule ? [module, module.default] : [module];
  if (names) {
    const found = homes.map((home) => at(home, names)).find((value) => typeof value === 'function');
    if (found) return found;
  } else {
    for (const name of FUNCTIONS) {
      const found = homes.map((home) => home?.[name]).find((value) => typeof value === 'function');
      if (found) return found;
    }
    const itself = homes.findLast((home) => typeof home === 'function');
    if (itself) return itself;
  }
  if (!isEsm && Object.keys(module ?? {}).length === 0 && typeof module !== 'function') return undefined;
  const wanted = names ? names.join('.') : FUNCTIONS.join(' or ');
  throw new HandlerNotFound(`${path.basename(file)} exports no function ${wanted}`);
}

/** Whether the source can't export anything, so that it must not be loaded but run. */
function isScript(file) {
  return !/\bexports?\b/.test(fs.readFileSync(file, 'utf8'));
}

/** Becomes the function: environment, folder, code. Returns `invoke(event, body, context, call)`. */
async function load(specialise) {
  const root = specialise.taskRoot;
  Object.assign(process.env, specialise.env);
  process.chdir(root);
  process.argv.length = 1;
  const [file, names] = locate(root, specialise.handler);
  if (isScript(file)) return scriptCaller(file);
  const handler = findFunction(await importModule(file), names, file);
  return handler ? functionCaller(handler) : scriptCaller(file);
}

// --- calling

function functionCaller(handler) {
  // Whether the handler answers by callback rather than by what it returns.
  const answersLater = handler.length >= 3 || (handler.length === 2 && /\.(succeed|fail|done)\s*\(/.test(String(handler)));
  return (body, context, call) => {
    const event = body === '' ? {} : parse(body);
    call.startedAt = now();
    const value = handler(event, context, call.callback);
    if (typeof value?.then === 'function') {
      value.then(call.succeed, call.fail);
    } else if (!answersLater) {
      call.succeed(value);
    }
  };
}

function scriptCaller(file) {
  const { spawn } = require('child_process');
  return (body, context, call) => {
    const env = { ...process.env, ...(context.modelId && { MODEL_ID: context.modelId }) };
    delete env.PAYLOAD;
    if (Buffer.byteLength(body) <= PAYLOAD_ENV_BYTES_MAX) env.PAYLOAD = body;
    const child = spawn(process.execPath, [file], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const output = new ScriptOutput();
    const stopEarly = () => {
      output.flush();
      child.kill('SIGTERM');
      process.kill(process.pid, 'SIGTERM');
    };
    process.once('SIGTERM', stopEarly);
    child.stdin.on('error', () => {}); // a script need not read it
    child.stdin.end(body);
    child.stdout.on('data', (bytes) => output.add(bytes));
    child.on('error', call.fail);
    child.on('close', (code, signal) => {
      process.off('SIGTERM', stopEarly);
      if (code === 0) return output.finish(call);
      output.flush();
      const how = signal ? `killed by ${signal}` : `exited with code ${code}`;
      call.end(runtimeError(signal ? 'Crashed' : 'ExitError', how), '', code ?? undefined);
    });
  };
}

/**
 * What a script prints: lines of log, then its value. Output that may be one JSON document from its first byte is held back
 * until the end; of any other the lines go on at once, all but the last, which may be the value.
 */
class ScriptOutput {
  chunks = [];
  bytes = 0;
  written = 0; // bytes from the beginning that were passed on
  holding = undefined;

  add(bytes) {
    this.chunks.push(bytes);
    this.bytes += bytes.length;
    if (this.holding === undefined) {
      const first = bytes.toString('latin1').trimStart()[0];
      if (first !== undefined) this.holding = /[[{"\-0-9tfn]/.test(first);
    }
    if (this.holding && this.bytes <= SCRIPT_OUTPUT_BYTES_MAX) return;
    this.holding = false;
    const all = this.all();
    const lineEnd = all.lastIndexOf(10, all.length - 2) + 1;
    if (lineEnd > this.written) this.passOn(all.subarray(this.written, lineEnd));
    if (this.bytes > SCRIPT_OUTPUT_BYTES_MAX) this.dropPassedOn(all);
  }

  all() {
    if (this.chunks.length > 1) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0] ?? Buffer.alloc(0);
  }

  passOn(bytes) {
    this.written += bytes.length;
    process.stdout.write(bytes);
  }

  /** Too much to be a value: from here on only the last line counts. */
  dropPassedOn(all) {
    this.tooLong = true;
    if (this.written === 0) this.passOn(all);
    this.chunks = [all.subarray(this.written)];
    this.bytes -= this.written;
    this.written = 0;
  }

  flush() {
    this.passOn(this.all().subarray(this.written));
  }

  finish(call) {
    const all = this.all();
    const text = all.toString('utf8').trim();
    if (!this.tooLong && isJson(text)) return call.end(undefined, text);
    const lastLine = text.slice(text.lastIndexOf('\n') + 1);
    if (isJson(lastLine)) {
      const lineStart = all.lastIndexOf(lastLine);
      if (lineStart > this.written) this.passOn(all.subarray(this.written, lineStart));
      return call.end(undefined, lastLine);
    }
    this.flush();
    if (this.tooLong) {
      return call.end(runtimeError('Runtime.OutputTooLarge', 'printed more than fits a value, and no JSON as its last line'), '');
    }
    call.end(undefined, text === '' ? 'null' : stringify(text));
  }
}

function isJson(text) {
  try {
    parse(text);
    return true;
  } catch {
    return false;
  }
}

/** One call: whichever answer comes first counts. */
class Call {
  llmTokens = undefined;
  startedAt = now();
  ended = false;

  constructor(invoke, root, answer) {
    this.id = invoke.id;
    this.root = root;
    this.answer = answer;
    this.succeed = (value) => this.marshal(value);
    this.fail = (thrown) => this.end(describe(thrown, this.root), '');
    this.callback = (error, value) => (error == null ? this.marshal(value) : this.fail(error));
  }

  marshal(value) {
    let text;
    try {
      text = stringify(value) ?? 'null';
    } catch (error) {
      const message = `the handler's value has no form in JSON: ${String(error?.message).split('\n')[0]}`;
      return this.end(runtimeError('Runtime.MarshalError', message), '');
    }
    this.end(undefined, text);
  }

  end(error, body, exitCode) {
    if (this.ended) return;
    this.ended = true;
    const handlerUs = Math.round((now() - this.startedAt) * 1000);
    this.answer({ id: this.id, error, exitCode, handlerUs, llmTokens: this.llmTokens }, body);
  }
}

// --- the service

function serve(fd) {
  let root = '/';
  let facts;
  let invoke;
  let call; // the one that runs
  let failLoading; // set while the user's module loads
  let send = (kind, meta, body) => channel.send(kind, meta, body);

  const specialise = async (meta) => {
    root = meta.taskRoot;
    let error = null;
    try {
      invoke = await Promise.race([load(meta), new Promise((_, reject) => (failLoading = reject))]);
      facts = functionFacts(meta);
    } catch (thrown) {
      error = describe(thrown, root);
    }
    failLoading = undefined;
    send(SPECIALISED, encodeMeta({ error }), '');
  };

  const begin = (meta, body) => {
    process.env.JOB_ID = meta.id;
    const mine = (call = new Call(meta, root, (resultMeta, value) => {
      call = undefined;
      send(RESULT, encodeMeta(resultMeta), value);
    }));
    try {
      invoke(body, new Context(facts, meta, mine), mine);
    } catch (thrown) {
      mine.fail(thrown);
    }
  };

  const channel = new Channel(fd, (kind, meta, body) => {
    if (kind === SPECIALISE && !invoke) return void specialise(meta);
    if (kind === INVOKE && invoke && !call) return begin(meta, body);
    process.reallyExit(70);
  });

  /**
   * Does once, with a function of ours, what the first function and its first call will need done, and takes it back: what runs for
   * the first time is compiled first, and that is most of what loading a small function takes.
   */
  const rehearse = async (folder) => {
    const environment = { ...process.env };
    const answered = () => new Promise((resolve) => (send = (kind, meta, body) => resolve(frameOf(kind, meta, body))));
    const facts = { functionName: '', functionId: '', functionVersion: 0, memoryMb: 0 };
    const load = { taskRoot: folder, handler: 'rehearsal.handler', env: { TZ: ':UTC' }, ...facts };
    for (const [kind, meta, body] of [[SPECIALISE, load, ''], [INVOKE, { id: '', deadlineMs: 0 }, '{"a":[1,"b",null]}']]) {
      const answer = answered();
      channel.take(frameOf(kind, stringify(meta), body));
      await answer;
      if (!invoke) break; // it can't be loaded; what is wrong shows again when it counts
    }
    send = (kind, meta, body) => channel.send(kind, meta, body);
    root = '/';
    invoke = undefined;
    process.chdir('/');
    for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
    Object.assign(process.env, environment);
    delete require.cache[path.join(folder, 'rehearsal.js')];
  };

  // What nobody caught fails the call it happened in; the sandbox stays.
  const uncaught = (thrown) => {
    if (call) return call.fail(thrown);
    if (failLoading) return failLoading(thrown);
    console.error('after the call had ended:', thrown);
  };
  process.on('uncaughtException', uncaught);
  process.on('unhandledRejection', uncaught);

  Error.stackTraceLimit = FRAMES_MAX;
  // What is printed must be in the pipe before the result is sent; Node itself promises it for files and terminals only.
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
  // The first asynchronous file operation starts the thread pool: do it now, so that the number of threads stays the same.
  fs.stat('/', async () => {
    await rehearse(__dirname);
    channel.send(READY, '{}', '');
  });
}

serve(SOCKET_FD);
