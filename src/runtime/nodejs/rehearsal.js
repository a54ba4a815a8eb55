// What the shim loads and calls before there is a function: see `rehearse` in shim.cjs.
exports.handler = async (event) => event;
