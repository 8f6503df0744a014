# A member may ask for more time, or less.
log 3
join a credit=3
late 10s
touch a 1
touch a 2 for=60s
touch a 3 for=5s
wait 5s
---
log a joined credit=3
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s
→ a #3 attempt=1/4 until=30s
answer touched 40s
answer touched 70s
answer touched 15s
at 15s:
commit failed #3 attempt 1 of a 0ns-15s Timeout
log #3 of a: Timeout, retry 1/3 in 1s

wait 1s
wait 24s
---
at 16s:
→ a #3 attempt=2/4 until=46s
at 40s:
commit failed #1 attempt 1 of a 0ns-40s Timeout
log #1 of a: Timeout, retry 1/3 in 1s

wait 1h
---
at 41s:
→ a #1 attempt=2/4 until=71s
at 46s:
commit failed #3 attempt 2 of a 16s-46s Timeout
log #3 of a: Timeout, retry 2/3 in 2s
at 48s:
→ a #3 attempt=3/4 until=78s
at 70s:
commit failed #2 attempt 1 of a 0ns-70s Timeout
log #2 of a: Timeout, retry 1/3 in 1s
at 71s:
commit failed #1 attempt 2 of a 41s-71s Timeout
log #1 of a: Timeout, retry 2/3 in 2s
→ a #2 attempt=2/4 until=101s
at 73s:
→ a #1 attempt=3/4 until=103s
at 78s:
commit failed #3 attempt 3 of a 48s-78s Timeout
log #3 of a: Timeout, retry 3/3 in 4s
at 82s:
→ a #3 attempt=4/4 until=112s
at 101s:
commit failed #2 attempt 2 of a 71s-101s Timeout
log #2 of a: Timeout, retry 2/3 in 2s
at 103s:
commit failed #1 attempt 3 of a 73s-103s Timeout
log #1 of a: Timeout, retry 3/3 in 4s
→ a #2 attempt=3/4 until=133s
at 107s:
→ a #1 attempt=4/4 until=137s
at 112s:
commit dead letter #3 attempt 4 of a 82s-112s Timeout
log #3 of a: Timeout, dead letter after 4
at 133s:
commit failed #2 attempt 3 of a 103s-133s Timeout
log #2 of a: Timeout, retry 3/3 in 4s
at 137s:
commit dead letter #1 attempt 4 of a 107s-137s Timeout
log #1 of a: Timeout, dead letter after 4
→ a #2 attempt=4/4 until=167s
at 167s:
commit dead letter #2 attempt 4 of a 137s-167s Timeout
log #2 of a: Timeout, dead letter after 4

# Only who holds it.
log 4
join b
touch b 4
touch a 99
---
→ a #4 attempt=1/4 until=3670s
log b joined credit=5
answer not pending
answer not pending
