"""Section 4 of the DiffStitch paper, literally: NumPy float64, Python loops, one pair and one step at a time.

Slow on purpose, and written from the paper, not from the package. The networks are arguments: functions of
arrays. `reference_*` are the authors' released code where it differs from their paper. Indices count from 0, so
a window is `s_0 ... s_{H-1}`, where the paper's Eq. 3 names it `s_T, s_1^m, ..., s_{H-1}^m`.
"""

import math

import numpy as np

# Section 4.2, the training mask -----------------------------------------------------------------------------------


def hidden_intervals(shown):
    """The hidden stretches of a mask, as [first, last] pairs."""
    intervals = []
    for position, visible in enumerate(shown):
        if visible:
            continue
        if intervals and intervals[-1][1] == position - 1:
            intervals[-1][1] = position
        else:
            intervals.append([position, position])
    return intervals


def is_paper_mask(shown, length, context=1):
    """`(s_i, [MASK] ... [MASK], s_k, s_{k+1}, ... [MASK])`: shown, hidden, shown, hidden.

    Of the `length` states inside an episode the first `context` are shown (the paper: one) and the last is hidden.
    Fewer than `context + 3` cannot hold two hidden intervals: then all after the first are hidden.
    """
    if any(shown[length:]):
        return False
    intervals = hidden_intervals(shown[:length])
    if length < context + 3:
        return intervals == [[context, length - 1]]
    return len(intervals) == 2 and intervals[0][0] == context and intervals[1][1] == length - 1


def is_reference_mask(shown, length, context=1):
    """The released code: the first state and one block somewhere in 1 .. H-2; the last is never shown."""
    if any(shown[length:]) or not all(shown[:context]):
        return False
    block = [position for position in range(context, length) if shown[position]]
    if length < context + 2:
        return not block
    return bool(block) and block == list(range(block[0], block[-1] + 1)) and block[-1] <= length - 2


# Eq. 12, the loss -------------------------------------------------------------------------------------------------


def noised(tau, eps, k, K):
    """The first argument of the network in Eq. 12."""
    alpha_bar = cosine_alpha_bars(K)[k]
    return math.sqrt(alpha_bar) * tau + math.sqrt(1 - alpha_bar) * eps


def squared_error(eps, predicted, positions):
    """The mean square of `eps - predicted` over some positions of a window."""
    total, count = 0.0, 0
    for position in positions:
        for e, p in zip(eps[position], predicted[position], strict=True):
            total, count = total + (e - p) ** 2, count + 1
    return total / count


# Eq. 11, K denoising steps ----------------------------------------------------------------------------------------


def cosine_alpha_bars(K):
    """The cumulative products of Nichol and Dhariwal's cosine schedule; [0] is 1, before any noise."""
    s = 0.008
    f = [math.cos((k / K + s) / (1 + s) * math.pi / 2) ** 2 for k in range(K + 1)]
    alpha_bars = [1.0]
    for k in range(1, K + 1):
        beta = min(1 - f[k] / f[k - 1], 0.999)
        alpha_bars.append(alpha_bars[-1] * (1 - beta))
    return alpha_bars


def generate(eps_theta, masked, shown, K, noises, low, high):
    """Eq. 11 (and so the G_theta of Eqs. 3 and 6): one window of H states from noise in K steps.

    `eps_theta(tau_k, tau_masked, shown, k)` is the network; `masked` the masked sequence, an input of it; `noises` K
    draws, the first of them tau^K. What is given stands in the result as it is (Eq. 6).

    The mean is Eq. 11's, with the noise that belongs to the predicted states once these are held in the range of
    the data; the variance is the posterior's (Ho et al. 2020, section 3.2, find both alike), not the printed
    1 - alpha_k, and the last step adds none.
    """
    alpha_bar = cosine_alpha_bars(K)
    masked = np.where(np.asarray(shown, dtype=bool)[:, None], masked, 0.0)
    noises = iter(noises)
    tau = np.array(next(noises), dtype=np.float64)
    for k in range(K, 0, -1):
        alpha = alpha_bar[k] / alpha_bar[k - 1]
        eps = eps_theta(tau, masked, shown, k)
        clean = (tau - math.sqrt(1 - alpha_bar[k]) * eps) / math.sqrt(alpha_bar[k])
        clean = np.clip(clean, low, high)
        eps = (tau - math.sqrt(alpha_bar[k]) * clean) / math.sqrt(1 - alpha_bar[k])
        tau = (tau - (1 - alpha) / math.sqrt(1 - alpha_bar[k]) * eps) / math.sqrt(alpha)
        if k > 1:
            noise = np.asarray(next(noises), dtype=np.float64)
            tau = tau + math.sqrt((1 - alpha_bar[k - 1]) / (1 - alpha_bar[k]) * (1 - alpha)) * noise
    return overwrite(tau, masked, shown)


def overwrite(tau, masked, shown):
    tau = tau.copy()
    for position, visible in enumerate(shown):
        if visible:
            tau[position] = masked[position]
    return tau


# Section 4.1.1, step estimation -----------------------------------------------------------------------------------


def dream_sequence(s_T, H):
    """Eq. 3's input: s_T, then H - 1 masks."""
    masked = np.zeros((H, len(s_T)))
    masked[0] = s_T
    return masked, [True] + [False] * (H - 1)


def cosine(x, y):
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return dot / (math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y)))


def steps_needed(dream, target, first=1, last=None):
    """Eq. 4: the index of the dreamed state most like s'_1, and its similarity; Delta <= H - 2."""
    last = len(dream) - 2 if last is None else min(last, len(dream) - 2)
    best, delta = -math.inf, None
    for i in range(first, last + 1):
        similarity = cosine(dream[i], target)
        if similarity > best:
            best, delta = similarity, i
    return delta, best


# Section 4.1.2, state stitching -----------------------------------------------------------------------------------


def stitch_sequence(s_T, delta, tau_prime, H):
    """Eq. 5: s_T, Delta masks, s'_1, and the rest of the window filled with the target's own future."""
    masked = np.zeros((H, len(s_T)))
    shown = [False] * H
    masked[0], shown[0] = s_T, True
    for position in range(delta + 1, H):
        later = position - (delta + 1)
        if later < len(tau_prime):
            masked[position], shown[position] = tau_prime[later], True
    return masked, shown


def stitching_states(window, delta):
    """Eq. 6: the Delta states between s_T and s'_1."""
    return [window[position] for position in range(1, delta + 1)]


# Section 4.1.3, trajectory wrap-up --------------------------------------------------------------------------------


def wrap_up(states, f_psi, f_phi):
    """Eqs. 7 and 8: an action for each pair of adjacent states, a reward for each state and action."""
    actions, rewards = [], []
    for t in range(len(states) - 1):
        action = f_psi(states[t], states[t + 1])
        actions.append(action)
        rewards.append(f_phi(states[t], action))
    return actions, rewards


# Section 4.1.4, qualification -------------------------------------------------------------------------------------


def qualifies(states, actions, f_omega, delta):
    """Eqs. 9 and 10: discarded if any predicted state is delta or more (squared) from the stitched one."""
    for t in range(len(actions)):
        predicted = f_omega(states[t], actions[t])
        if sum((p - s) ** 2 for p, s in zip(predicted, states[t + 1], strict=True)) >= delta:
            return False
    return True


# tau_gen ----------------------------------------------------------------------------------------------------------


def tau_gen(tau, T, bridge, tau_prime, start, limit=None):
    """All of tau up to s_T, the stitching states, all of tau' from s'_1 on: (states, actions, rewards).

    `tau` and `tau_prime` are whole episodes (states, actions, rewards) with one state more than actions, `T` and
    `start` the places of s_T and s'_1 in them, `bridge` the stitching states with the actions and rewards of
    s_T and each of them. `limit` is the number of steps after which the environment ends an episode.
    """
    states, actions, rewards = [], [], []
    for t in range(T):  # (s_1, a_1, r_1) ...
        states.append(tau[0][t])
        actions.append(tau[1][t])
        rewards.append(tau[2][t])
    for t, state in enumerate([tau[0][T], *bridge[0]]):  # (s_T, a~_T, r~_T), (s~_1, a~_1, r~_1) ...
        states.append(state)
        actions.append(bridge[1][t])
        rewards.append(bridge[2][t])
    for t in range(start, len(tau_prime[1])):  # (s'_1, a'_1, r'_1) ...
        states.append(tau_prime[0][t])
        actions.append(tau_prime[1][t])
        rewards.append(tau_prime[2][t])
    states.append(tau_prime[0][len(tau_prime[1])])
    if limit is not None and len(actions) > limit:
        states, actions, rewards = states[: limit + 1], actions[:limit], rewards[:limit]
    return np.array(states), np.array(actions), np.array(rewards)


# Low-reward sources, high-reward targets --------------------------------------------------------------------------


def returns_to_go(rewards, gamma):
    """The discounted sum of rewards from each step to the episode's end."""
    total, returns = 0.0, []
    for reward in reversed([float(r) for r in rewards]):
        total = reward + gamma * total
        returns.append(total)
    return returns[::-1]


def ranked(rewards_of_episodes, gamma):
    """(episode, step) of every state that has an action, the lowest return-to-go first.

    A trajectory of the paper is any piece of an episode: it may end at any (s_T, a_T) and begin at any (s'_1, a'_1).
    """
    states = []
    for episode, rewards in enumerate(rewards_of_episodes):
        for step, value in enumerate(returns_to_go(rewards, gamma)):
            states.append((value, episode, step))
    return [(episode, step) for _, episode, step in sorted(states)]


def lowest(states, share):
    return states[: round(share * len(states))]


def highest(states, share):
    return states[len(states) - round(share * len(states)) :]


# The released code's choice of a target ---------------------------------------------------------------------------


def reference_matches(dream, targets, similarity, first=10, last=39):
    """The targets whose first state is as similar as that to any dreamed state 10 .. 39."""
    matches = []
    for index, target in enumerate(targets):
        if any(cosine(dream[i], target) >= similarity for i in range(first, last + 1)):
            matches.append(index)
    return matches


# Algorithm 1, lines 7 to 16 ---------------------------------------------------------------------------------------


def algorithm_1(tau, T, tau_prime, start, *, H, G, f_psi, f_phi, f_omega, delta, last=None):
    """One pair: (Delta, stitching states, actions, rewards, whether it qualifies).

    `G` maps a masked sequence and what it shows to a whole one, and is asked twice. `tau` and `tau_prime` are the
    states of the two episodes; the rest as in `tau_gen`.
    """
    dream = G(*dream_sequence(tau[T], H))  # 7, Eq. 3
    steps, _ = steps_needed(dream, tau_prime[start], last=last)  # 8, Eq. 4
    window = G(*stitch_sequence(tau[T], steps, tau_prime[start:], H))  # 9 and 10, Eqs. 5 and 6
    bridge = stitching_states(window, steps)
    path = [tau[T], *bridge, tau_prime[start]]
    actions, rewards = wrap_up(path, f_psi, f_phi)  # 11, Eqs. 7 and 8
    return steps, bridge, actions, rewards, qualifies(path, actions, f_omega, delta)  # 12 and 13, Eqs. 9 and 10
