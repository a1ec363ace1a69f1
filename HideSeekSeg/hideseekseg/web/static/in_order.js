// The server's messages are Blobs, and each is read in its own time: a long one can be overtaken by
// a short one that was sent after it, and the page would keep what is outdated. Here they take turns.
(function () {
  "use strict";

  const read = Blob.prototype.arrayBuffer;
  let last = Promise.resolve();
  Blob.prototype.arrayBuffer = function () {
    const content = read.call(this);
    const turn = last.then(() => content);
    last = turn.catch(() => {});
    return turn;
  };
})();
