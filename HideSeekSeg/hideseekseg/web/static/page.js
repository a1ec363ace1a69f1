// What a template cannot do: single keys, a slider that is followed, text being typed, uploads.
(function () {
  "use strict";

  const $ = (id) => document.getElementById(id);
  const state = (name) => window.trame.state.get(name);
  // Each comes with the review that is drawn here: a verdict is of no other.
  let unanswered = 0;
  async function act(...words) {
    if ($("ended")) return;
    unanswered += 1;
    try {
      return await window.trame.trigger("do", words, { opened: state("opened") });
    } finally {
      unanswered -= 1;
    }
  }

  // A verdict is of the finding that its reader saw: of none that another tab chose meanwhile, nor of
  // the next one before it is shown.  After the reader's own steps, which are still on their way, the
  // session knows which finding that is.
  let judging = 0, judged = "";
  // A finding as it stands in the list: a type that is switched stays chosen, and may be switched back
  // as soon as it is shown.
  const asListed = () => state("current") + JSON.stringify((state("rows") || {})[state("current")]);
  async function judge(name, ...values) {
    const shown = state("current"), about = name === "switchType" ? asListed() : shown;
    if (judging && about === judged) return;
    const seen = unanswered > judging ? "" : shown;
    judged = about;
    judging += 1;
    try {
      await act(name, ...values, seen);
    } finally {
      judging -= 1;
    }
  }

  // What the review's buttons ask the session for, clicked or by key.
  const ASKS = {
    accept: ["judge", "accepted", ""],
    reject: ["judge", "rejected", ""],
    previous: ["step", -1],
    next: ["step", 1],
    uncertain: ["judge", "uncertain", ""],
    previousVertebra: ["stepVertebra", -1],
    nextVertebra: ["stepVertebra", 1],
    undo: ["travel", false],
    redo: ["travel", true],
    switchType: ["switchType"],
    overlay: ["overlay"],
    healthy: ["togglePicture", "healthy"],
    difference: ["togglePicture", "difference"],
    nextCase: ["case", 1],
    previousCase: ["case", -1],
  };

  // A case is left by its name: a second press, made before the next one was drawn, is not of that.
  function ask(action) {
    const [name, ...values] = ASKS[action];
    if (name === "judge" || name === "switchType") return judge(name, ...values);
    judged = ""; // who steps or takes back in between means the same finding once more
    if (name === "case") values.push((state("cases") || {}).current);
    return act(name, ...values);
  }

  // Arrows step through the slices of the view that the mouse was over last.
  const ARROWS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };
  // So they do after a click in a list; who came to the list by Tab goes on in it.
  let pointedAt = "sagittal", tabbed = false;
  document.addEventListener("pointerover", (event) => {
    const view = event.target.closest && event.target.closest(".view");
    const name = view && ["sagittal", "axial", "coronal"].find((one) => view.classList.contains(one));
    if (name) pointedAt = name;
    if (name) tabbed = false;
  });

  // Arrows and letters change a list by themselves, before anything is chosen: then the list keeps
  // the focus, and "Reject as" waits for Enter. What was chosen gives the keys back to the review.
  let browsing = false;
  function rejectAs(list) {
    if (typedIn !== list) return;
    const reason = list.value;
    list.blur();
    judge("judge", "rejected", reason);
  }

  // A button that Enter is held on is pressed once, as by its own key: only what steps or switches
  // goes on, for a browser clicks it again each time that the key repeats.
  const once = (action) => !(action in ASKS) || (state("once") || []).includes(action);
  function isHeld(event) {
    const button = event.repeat && event.key === "Enter" && event.target.closest("button");
    return Boolean(button) && once(button.dataset.action);
  }

  // Of a keyboard that writes other letters than Latin ones, keys count by their place.
  function letterOf(event) {
    const foreign = event.key === "Process" || (event.key.length === 1 && event.key > "~");
    return foreign && /^Key[A-Z]$/.test(event.code) ? event.code.slice(3) : event.key;
  }

  // Keys belong to the button that shows them; a dialog and a field that is typed in keep theirs.
  // The session decides what can be done, not the button: the page is later than the session, and a
  // key that waited for its button to be enabled would be lost.
  function onKey(event) {
    if (isHeld(event)) {
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    if (event.key === "Tab") tabbed = true;
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (entered !== null && event.target.id !== "comment") {
      // The field went while words were typed in it: the rest of them must not judge anything.
      if (["Enter", "Escape"].includes(event.key)) entered = null;
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    const typed = event.target.closest("input:not([type=range]), textarea, select");
    if (typed) {
      const opensOrEnds = ["Enter", " ", "Escape"].includes(event.key);
      browsing = typed.matches("select") && !opensOrEnds;
      // Some browsers choose after this key, and choose nothing else then.
      if (event.key === "Enter" && typed.id === "reason") setTimeout(rejectAs, 0, typed);
      else if (event.key === "Enter" || event.key === "Escape") typed.blur();
      return;
    }
    const row = event.target.matches("tr[tabindex]");
    if (ARROWS[event.key] && (row ? !tabbed : !event.target.closest("aside, header, .tools"))) {
      event.preventDefault();
      event.stopPropagation();
      act("slice", pointedAt, ARROWS[event.key]);
      return;
    }
    if (event.key === "Escape" && document.querySelector(".view.alone")) {
      showAlone(document.querySelector(".view.alone [data-full]").dataset.full);
      return;
    }
    if (row) {
      const ways = event.target.closest("#candidates") ? ["previous", "next"] : ["previousVertebra", "nextVertebra"];
      const step = { ArrowUp: ways[0], ArrowDown: ways[1] }[event.key];
      const pressed = event.key === "Enter" || event.key === " ";
      if (pressed || step) event.preventDefault();
      if (pressed) event.target.click();
      if (step) ask(step);
      if (pressed || step) return;
    }
    const pressed = (event.shiftKey ? "⇧" : "") + letterOf(event).toUpperCase();
    const keys = state("keys") || {};
    const action = Object.keys(keys).find((name) => keys[name] === pressed);
    const button = action && document.querySelector(`[data-action="${action}"]`);
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat && (state("once") || []).includes(action)) return;
    if (action in ASKS) ask(action);
    else if (action === "comment") button.focus();
    else if (action === "missed") openDialog("missed-dialog");
    else button.click();
  }

  // The slider: the newest value is sent as soon as the last one was answered, none in between.
  const slider = { newest: null, sending: false, held: false };
  async function slide() {
    if (slider.sending) return;
    slider.sending = true;
    try {
      while (slider.newest !== null) {
        const value = slider.newest;
        slider.newest = null;
        await act("threshold", value);
      }
    } finally {
      slider.sending = false;
    }
  }

  // A field takes the session's value until something is typed in it, and again when it is left.
  let typedIn = null;
  function fill(id, value) {
    const field = $(id);
    if (field && field !== typedIn) field.value = value === undefined ? "" : value;
  }
  // What is typed as a comment is of the finding and the review that the page showed when it was
  // begun: another tab may choose another finding meanwhile, or open another case.
  let draft = null, resting = 0;
  const unheard = new Set(); // comments that were sent, and of which the session has not said that it has them
  // Each has a name of its own, by which the session knows one that it hears twice.
  const page = Math.random().toString(36).slice(2);
  let sendings = 0;
  async function tell(...of) {
    const comment = [...of, `${page}-${(sendings += 1)}`];
    unheard.add(comment);
    await act("comment", ...comment);
    if (!$("ended")) unheard.delete(comment);
  }
  // What a page sends as it goes may end with its connection: a request of its own outlives the page.
  function tellAtLast() {
    keep();
    const last = new Map([...unheard].map((comment) => [comment[1], comment])); // of each finding
    for (const comment of last.values()) {
      fetch("comment", { method: "POST", keepalive: true, body: JSON.stringify(comment) }).catch(() => {});
    }
  }
  function commit(elsewhere = false) {
    clearTimeout(resting);
    if (!draft) return;
    const { text, id, opened, sent } = draft;
    draft = null;
    if (elsewhere || text !== sent) tell(text, id, opened);
  }
  // What is typed is sent as soon as its reader rests, or the page is hidden or closed: it may never
  // be entered.
  function keep() {
    clearTimeout(resting);
    if (!draft || !draft.id || draft.text === draft.sent) return false;
    draft.sent = draft.text;
    tell(draft.text, draft.id, draft.opened);
    return true;
  }
  // The number of the review in which the field was entered, until it is left.  Nothing can be typed
  // in it while another scan is read, nor in another review before it was left.
  let entered = null;
  const shut = () => state("loading") || (entered !== null && entered !== state("opened"));
  function guard() {
    const closed = shut(), field = $("comment"), elsewhere = entered !== null && entered !== state("opened");
    if (draft && (closed || draft.opened !== state("opened"))) commit(true);
    if (!field) return;
    if (elsewhere && typedIn === field) typedIn = null;
    if (elsewhere && document.activeElement !== field && !document.querySelector("dialog[open]")) {
      field.focus({ preventScroll: true }); // it was drawn again: the rest of the words stays in it
    }
    field.readOnly = closed;
    field.placeholder = !closed ? "Comment" : state("loading") ? "No comment while a scan is opened"
      : "Another review: Enter, then C to comment";
  }
  function typeComment(field) {
    if (!draft && shut()) { // a letter that came before the field was shut
      field.value = state("comment") || "";
      return;
    }
    draft = { id: state("current"), opened: state("opened"), ...draft, text: field.value };
    clearTimeout(resting);
    resting = setTimeout(keep, 1000);
  }
  // Bring a row into sight in its list alone: on a small screen the views stay where they are.
  // Return by how much it was out of sight.
  function bring(row, scroll = true) {
    const list = row.closest(".rows"), place = row.getBoundingClientRect(), seen = list.getBoundingClientRect();
    const top = seen.top + list.querySelector("thead").offsetHeight;
    const bottom = seen.top + list.clientTop + list.clientHeight;
    const away = place.top < top ? place.top - top : Math.max(place.bottom - bottom, 0);
    if (scroll) list.scrollTop += away;
    return away;
  }
  // The chosen row is brought into sight, with the focus where another row of its list has it.  It
  // stays in sight while the list is sorted, filtered or made smaller, unless its reader scrolled away.
  const rows = { "panel-findings": {}, "panel-vertebrae": {} };
  const smaller = new ResizeObserver((all) => all.forEach(({ target }) => keepInSight(target)));
  function keepInSight(list) {
    const before = rows[list.id], chosen = list.querySelector("tr.chosen");
    if (before.list !== list) {
      smaller.observe(list);
      list.addEventListener("scroll", () => {
        const row = list.querySelector("tr.chosen");
        const still = row && row.offsetTop === before.top && list.clientHeight === before.height;
        if (still) before.seen = Math.abs(bring(row, false)) < row.offsetHeight / 2; // else no reader scrolled
      });
    }
    const another = chosen && chosen.dataset.id !== before.id;
    if (chosen && (another || before.seen)) {
      bring(chosen);
      before.seen = true;
    }
    const focused = document.activeElement;
    if (another && list.contains(focused) && focused.matches("tr[tabindex]")) chosen.focus({ preventScroll: true });
    Object.assign(before, { list, id: chosen ? chosen.dataset.id : "", height: list.clientHeight, top: chosen && chosen.offsetTop });
  }
  // The server has ended, or the connection to it: the page comes back by itself once it answers.
  let looking = false;
  async function lookForServer() {
    const ended = $("ended");
    if (!ended || looking) return;
    looking = true;
    const sent = [...unheard].map(([text]) => text);
    const words = [...sent, ...(draft && draft.text !== draft.sent ? [draft.text] : [])].filter(Boolean).pop();
    $("ended-words").textContent = words ? `This comment may not be kept: “${words}”` : "";
    try {
      const answer = await fetch("index.html", { cache: "no-store" });
      if (answer.ok && !words) location.reload();
      $("ended-again").hidden = answer.ok || answer.status !== 403;
      $("ended-reload").hidden = !answer.ok;
    } catch (error) {
      $("ended-reload").hidden = true;
    } finally {
      looking = false;
    }
  }
  setInterval(lookForServer, 1000);
  // A missed lesion is in the chosen vertebra, until the reader says another.
  let meant = "";
  function mean() {
    const level = state("level"), field = $("missed-level"), chosen = `${state("opened")} ${level}`;
    if (!field || chosen === meant) return;
    if (level) field.value = level;
    if (!level || field.value === level) meant = chosen;
  }
  function follow() {
    mean();
    if (!slider.held && slider.newest === null) {
      const field = $("threshold");
      if (field) field.value = state("threshold");
    }
    guard();
    fill("comment", state("comment"));
    fill("reason", state("reason"));
    const question = $("question-dialog"), series = $("series-dialog");
    if (!question || !series) return; // the session has ended
    const asked = (state("question") || {}).text;
    if (asked && !question.open) question.showModal();
    else if (!asked && question.open) question.close();
    const several = (state("series") || []).length > 0;
    if (several && !series.open) series.showModal();
    else if (!several && series.open) series.close();
    for (const picture of document.querySelectorAll(".view img:not([alt]), .view img[alt='']")) {
      picture.alt = picture.closest(".view").querySelector(".name").innerText;
    }
    for (const id in rows) if ($(id)) keepInSight($(id));
  }

  // Uploads.
  function complain(text) {
    const line = $("open-error");
    line.textContent = text;
    line.hidden = !text;
  }
  function send(role, file, progress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", `upload/${role}/${encodeURIComponent(file.name)}`);
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onload = () => (request.status === 200 ? resolve() : reject(new Error(request.responseText.trim())));
      request.onerror = () => reject(new Error(`${file.name}: the connection was lost`));
      request.send(file);
    });
  }
  // What the system hides in a folder (.DS_Store) is none of its slices.
  const inFolder = (id) => [...$(id).files].filter((file) => !file.name.startsWith("."));
  async function load() {
    complain("");
    const limit = state("limit_mb") * 2 ** 20;
    const chosen = [
      ...[...$("ct-file").files].map((file) => ["ct", file]),
      ...($("ct-file").files.length ? [] : inFolder("dicom-folder").map((file) => ["dicom", file])),
      ...[...$("vertebrae-file").files].map((file) => ["vertebrae", file]),
    ];
    const total = chosen.reduce((sum, [, file]) => sum + file.size, 0);
    const bar = $("open-bar");
    try {
      if (total > limit) throw new Error(`These files are larger than the limit of ${state("limit_mb")} MB.`);
      bar.hidden = chosen.length === 0;
      await act("stage"); // what an earlier choice uploaded goes
      let sent = 0;
      for (const [role, file] of chosen) {
        await send(role, file, (part) => (bar.firstChild.style.width = `${(100 * (sent + part)) / total}%`));
        sent += file.size;
      }
    } catch (error) {
      complain(error.message);
      return;
    } finally {
      bar.hidden = true;
    }
    $("open-dialog").close();
    act("load", $("ct-path").value, $("vertebrae-path").value, $("labels").value);
    for (const id of ["ct-file", "dicom-folder", "vertebrae-file", "ct-path", "vertebrae-path"]) $(id).value = "";
  }

  function save() {
    $("save-dialog").close();
    act("save", $("save-folder").value, $("reviewer").value);
  }

  function openDialog(id) {
    complain("");
    fill("save-folder", state("folder"));
    if (!$("reviewer").value) fill("reviewer", state("reviewer"));
    $(id).showModal();
  }

  // One view alone, or all of them again; the server learns of the new sizes by itself.
  function showAlone(name) {
    const main = document.querySelector("main"), before = main.querySelector(".view.alone");
    if (before) before.classList.remove("alone");
    const view = main.querySelector(`.view.${name}`);
    const alone = view !== before;
    if (alone) view.classList.add("alone");
    main.classList.toggle("one-alone", alone);
    window.dispatchEvent(new Event("resize"));
  }

  function onClick(event) {
    const opener = event.target.closest("[data-dialog]");
    if (opener && !opener.disabled) {
      openDialog(opener.dataset.dialog);
      return;
    }
    const tool = event.target.closest("[data-tool]"), filled = event.target.closest("[data-full]");
    if (tool) act("tool", tool.dataset.tool);
    if (filled) showAlone(filled.dataset.full);
    if (event.target.id === "missed-add") {
      $("missed-dialog").close();
      act("missed", $("missed-level").value, $("missed-type").value);
    }
    const asked = event.target.closest("[data-action]");
    if (asked && asked.dataset.action in ASKS) {
      if (!asked.disabled) ask(asked.dataset.action);
      return;
    }
    const closer = event.target.closest("[data-close]");
    if (closer) closer.closest("dialog").close();
    else if (event.target.id === "open-load") load();
    else if (event.target.id === "save-now") save();
    else if (event.target.id === "answer-yes") act("answer", true);
    else if (["answer-no", "series-no"].includes(event.target.id)) act("answer", false);
    else if (event.target.id === "open-example") {
      $("open-dialog").close();
      act("example");
    }
  }

  // The second click of a double click is none: another button may have taken the place of the one
  // that was clicked, as Cancel does, or another finding that of the one that was judged.  Nobody has
  // looked at that so soon; who has is not kept waiting, however slow a double click the system allows.
  const TWICE_MS = 400;
  let clicked = -Infinity;
  function onClickAgain(event) {
    const button = event.target.closest("button"), action = button && button.dataset.action;
    const soon = event.timeStamp - clicked < TWICE_MS;
    if (event.detail > 0) clicked = event.timeStamp;
    const single = event.target.closest("[data-single]") || (soon && action in ASKS && once(action));
    if (event.detail < 2 || !single) return;
    event.preventDefault();
    event.stopPropagation();
  }

  window.addEventListener("keydown", onKey, true);
  document.addEventListener("click", onClickAgain, true);
  document.addEventListener("click", onClick);
  document.addEventListener("input", (event) => {
    if (event.target.id !== "threshold") {
      typedIn = event.target;
      if (event.target.id === "comment") typeComment(event.target);
      return;
    }
    slider.newest = Number(event.target.value);
    $("threshold-value").textContent = slider.newest.toFixed(2);
    slide();
  });
  document.addEventListener("pointerdown", (event) => {
    slider.held = event.target.id === "threshold";
    browsing = tabbed = false;
    const field = $("comment");
    entered = field && [event.target, document.activeElement].includes(field) ? state("opened") : null;
    guard();
  });
  document.addEventListener("pointerup", () => (slider.held = false));
  document.addEventListener("focusout", (event) => {
    typedIn = null;
    // A field that goes with its review, as another one is drawn, was not left by the reader.
    if (event.target.id === "comment" && state("reviewing")) {
      entered = null;
      setTimeout(guard); // once what was typed is sent
    }
    if (event.target.id === "reason") fill("reason", state("reason")); // looked at, not chosen
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.id === "comment" && entered === null) entered = state("opened");
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "comment") commit();
    if (browsing || !event.target.matches("select") || event.target.closest("dialog")) return;
    if (event.target.id === "reason") rejectAs(event.target);
    else event.target.blur();
  });
  // Escape is a no.
  document.addEventListener("cancel", (event) => {
    if (["question-dialog", "series-dialog"].includes(event.target.id)) {
      event.preventDefault();
      act("answer", false);
    }
  }, true);
  // The session goes on without its page, and saves automatically: but who closes the last tab may
  // not know that.
  window.addEventListener("beforeunload", (event) => {
    if ($("ended")) return;
    const typed = keep(); // on its way while the reader is asked
    if (typed || unheard.size || judging || state("unsaved")) event.preventDefault();
  });
  window.addEventListener("pagehide", tellAtLast);
  document.addEventListener("visibilitychange", () => document.hidden && keep());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.repeat || !(event.target.closest && event.target.closest("dialog"))) return;
    if (event.target.id === "save-folder" || event.target.id === "reviewer") save();
    if (event.target.id === "ct-path" || event.target.id === "vertebrae-path") load();
  });
  // After every change that came from the session, once Vue has drawn it.
  const waiting = setInterval(() => {
    if (!window.trame) return;
    clearInterval(waiting);
    window.trame.state.addListener(({ type }) => {
      if (type === "dirty-state") window.requestAnimationFrame(follow);
    });
    follow();
  }, 30);
})();
