"""How long the browser lets its reader wait, and what ten runs leave in memory."""
