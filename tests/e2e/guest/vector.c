/* Keeps values in vector registers while threads, processes, signals and a tracer come between, and looks whether they
 * are still there. Build: gcc -O1 -static -pthread. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 2000

static volatile sig_atomic_t signals;

/* Fills all sixteen registers with a value, makes the system call, and says how many registers have another value. */
static int across(long call, uint64_t value)
{
	uint64_t after[16];
	long result = call;

	__asm__ volatile(
		"movq %[value], %%xmm0\n movq %[value], %%xmm1\n movq %[value], %%xmm2\n movq %[value], %%xmm3\n"
		"movq %[value], %%xmm4\n movq %[value], %%xmm5\n movq %[value], %%xmm6\n movq %[value], %%xmm7\n"
		"movq %[value], %%xmm8\n movq %[value], %%xmm9\n movq %[value], %%xmm10\n movq %[value], %%xmm11\n"
		"movq %[value], %%xmm12\n movq %[value], %%xmm13\n movq %[value], %%xmm14\n movq %[value], %%xmm15\n"
		"syscall\n"
		"movq %%xmm0, 0(%[after])\n movq %%xmm1, 8(%[after])\n movq %%xmm2, 16(%[after])\n movq %%xmm3, 24(%[after])\n"
		"movq %%xmm4, 32(%[after])\n movq %%xmm5, 40(%[after])\n movq %%xmm6, 48(%[after])\n movq %%xmm7, 56(%[after])\n"
		"movq %%xmm8, 64(%[after])\n movq %%xmm9, 72(%[after])\n movq %%xmm10, 80(%[after])\n movq %%xmm11, 88(%[after])\n"
		"movq %%xmm12, 96(%[after])\n movq %%xmm13, 104(%[after])\n movq %%xmm14, 112(%[after])\n movq %%xmm15, 120(%[after])\n"
		: "+a"(result)
		: [value] "r"(value), [after] "r"(after)
		: "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
		  "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	int wrong = 0;
	for (int i = 0; i < 16; i++)
		wrong += after[i] != value;
	return wrong;
}

/* 24 is sched_yield, 110 getppid. */
static void *work(void *seed)
{
	long wrong = 0;

	for (uint64_t i = 0; i < ROUNDS; i++)
		wrong += across(i % 3 ? 24 : 110, (uint64_t)(uintptr_t)seed * 1000003 + i);
	return (void *)wrong;
}

static void clobber(int signal)
{
	(void)signal;
	signals++;
	across(110, 0x6666666666666666);
}

static long threads(void)
{
	pthread_t thread[4];
	long wrong = 0;

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, work, (void *)(i + 1));
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(thread[i], &result);
		wrong += (long)result;
	}
	return wrong;
}

static long processes(void)
{
	long wrong = 0;
	int status;

	for (uintptr_t i = 0; i < 4; i++) {
		if (fork() == 0)
			_exit(work((void *)(i + 7)) != NULL);
	}
	while (wait(&status) > 0)
		wrong += status != 0;
	return wrong;
}

/* 57 is fork: parent and child both have what was there before. */
static long forks(void)
{
	long wrong = 0;
	pid_t parent = getpid();
	int status;

	for (uint64_t i = 0; i < 50; i++) {
		int lost = across(57, i + 99);
		if (getpid() != parent)
			_exit(lost);
		wait(&status);
		wrong += lost + (status != 0);
	}
	return wrong;
}

static long interrupted(void)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = { { 0, 0 }, { 0, 0 } };
	long wrong = 0;

	signal(SIGALRM, clobber);
	setitimer(ITIMER_REAL, &often, NULL);
	for (uint64_t i = 0; i < ROUNDS || signals < 20; i++)
		wrong += across(110, i);
	setitimer(ITIMER_REAL, &never, NULL);
	return wrong;
}

/* The tracer sees the registers of the process that it traces, changes those and not its own. */
static long traced(void)
{
	struct user_fpregs_struct registers;
	uint64_t value = 0x1234567890;
	long wrong = 0;
	int status;
	pid_t child = fork();

	if (child == 0) {
		uint64_t after;
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		/* kill(own process, SIGSTOP) with a value in the last register. */
		__asm__ volatile("movq %1, %%xmm15\n syscall\n movq %%xmm15, %0"
				 : "=r"(after)
				 : "r"(value), "a"(62L), "D"((long)getpid()), "S"((long)SIGSTOP)
				 : "rcx", "r11", "memory", "xmm15");
		_exit(after != value + 1);
	}
	waitpid(child, &status, 0);
	if (ptrace(PTRACE_GETFPREGS, child, 0, &registers))
		return 1;
	wrong += memcmp(&registers.xmm_space[60], &value, sizeof(value)) != 0;
	value++;
	memcpy(&registers.xmm_space[60], &value, sizeof(value));
	wrong += ptrace(PTRACE_SETFPREGS, child, 0, &registers) != 0;
	wrong += across(110, 0x77);
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	return wrong + (status != 0);
}

int main(void)
{
	long wrong[] = { threads(), processes(), forks(), interrupted(), traced() };

	printf("lost: threads %ld, processes %ld, forks %ld, signals %ld, tracing %ld\n", wrong[0], wrong[1], wrong[2],
	       wrong[3], wrong[4]);
	return wrong[0] || wrong[1] || wrong[2] || wrong[3] || wrong[4];
}
